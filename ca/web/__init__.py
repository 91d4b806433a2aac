"""
Pages made on the server: no script, one style sheet, a strict content security policy.

``invitation.py`` is the only page now: a person sets a password by a one-time link.
"""
