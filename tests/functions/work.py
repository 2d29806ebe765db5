"""Functions that workers import by name, as those of any module but the script."""

import os
import time

import evener

SET_AT_IMPORT = [os.getpid()]


def square(x):
    return x * x


def power(base, exponent=2, *, plus=0):
    return base**exponent + plus


def echo(*args, **kwargs):
    return args, kwargs


def who():
    return os.getpid()


def imported_in():
    return SET_AT_IMPORT[0]


@evener.function
def decorated(x):
    return x + 1


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __eq__(self, other):
        return type(other) is Point and (self.x, self.y) == (other.x, other.y)

    __hash__ = None

    def moved(self, by):
        return Point(self.x + by, self.y + by)


def sleep(seconds):
    time.sleep(seconds)
    return seconds
