"""What the Python stages do. Each function gets the value of the step before it, and returns the value for the next."""


def count(text):
    """How many words there are."""
    print("counting", text)  # what a worker prints goes to the node's log
    return len(text.split())


def longest(text):
    """The longest word, or the first of them."""
    return max(text.split(), key=len, default="")
