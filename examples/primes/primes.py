"""Say whether a number is prime: the answer is the number itself, or else its smallest factor.

Two stages. `parse` reads the query parameter ``possible_prime`` and answers at once where no work is needed; `compute`
tries every odd number up to the square root.

    GET /is_prime?possible_prime=32416190071   ->   32416190071   (a prime)
    GET /is_prime?possible_prime=91            ->   7
"""

import math

import evener

# The square root of a number of this many digits is below 10**9, which bounds the trial divisions of one request.
MOST_DIGITS = 18

# How many divisions are done between two looks at whether the client still waits.
DIVISIONS_BETWEEN_CHECKS = 65_536


def parse(request):
    """Read the number from the query. Even numbers are answered from here: the loop back starts at any stage."""
    text = request.query.get("possible_prime")
    if text is None:
        raise evener.Abort(400, "the query parameter possible_prime is missing, as in /is_prime?possible_prime=7")
    digits = text.strip()
    # str.isdigit alone would let other scripts' digits in.
    if not (digits.isascii() and digits.isdigit()):
        raise evener.Abort(400, "possible_prime must be a whole number of at least 2, written in decimal digits")
    digits = digits.lstrip("0")
    if len(digits) > MOST_DIGITS:
        raise evener.Abort(400, f"possible_prime must have at most {MOST_DIGITS} digits; this one has {len(digits)}")
    number = int(digits or "0")
    if number < 2:
        raise evener.Abort(400, f"possible_prime must be a whole number of at least 2, not {number}")
    if number % 2 == 0:
        return evener.Response("2")
    return number


def compute(number, ctx):
    """Return the smallest factor of an odd number from 3 up: the number itself if it is prime."""
    root = math.isqrt(number)
    step = 2 * DIVISIONS_BETWEEN_CHECKS
    for start in range(3, root + 1, step):
        for candidate in range(start, min(start + step, root + 1), 2):
            if number % candidate == 0:
                return candidate
        ctx.check()
    return number
