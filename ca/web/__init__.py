"""
Pages made on the server: no script, one style sheet, a strict content security policy.

Start reading at ``pages.py`` (how every page is made and every form is read) and ``visitor.py`` (who looks at it). Then
one file per thing a person comes for: ``signing_in.py``, ``terminal.py``, ``device.py``, ``you.py``, ``factor.py``,
``invitation.py``.
"""
