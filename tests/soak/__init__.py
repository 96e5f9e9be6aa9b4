"""Everything that goes wrong in production, at random and at once, and what must hold then.

python -m tests.soak --seconds 900 --seed 7
"""
