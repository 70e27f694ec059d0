"Pictures and their names."
