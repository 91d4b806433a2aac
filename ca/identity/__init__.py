"""
Ways to prove who one is, one file each; every one ends in an ``Identity``. Now: ``local`` (a password).
"""
