"""
Ratios against stock OpenSSH on one machine in one run; ``make bench``. Never a test: these machines are shared.

``stock.py`` starts the jump host to compare with, ``measure.py`` takes the numbers, ``__main__.py`` prints the table.
"""
