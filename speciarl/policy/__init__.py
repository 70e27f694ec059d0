"Who is asked, and asking."
