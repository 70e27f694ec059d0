"The other method."
