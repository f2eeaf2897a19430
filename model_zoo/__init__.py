"""What a style is: generator architectures, trained weights, and the cards that describe them."""
