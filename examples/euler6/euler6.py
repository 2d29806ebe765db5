"""The two halves of Project Euler's problem 6, for any list of numbers."""


def sum_of_squares(numbers):
    """1² + 2² + 3² …"""
    return sum(number**2 for number in numbers)


def square_of_sum(numbers):
    """(1 + 2 + 3 …)²"""
    return sum(numbers) ** 2
