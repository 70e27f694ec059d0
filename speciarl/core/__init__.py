"Words, files and errors that everything shares."
