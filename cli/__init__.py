"""
The commands: ``bart`` for people who use Bartizan, ``bartizan`` for people who run it.

One file per command. Start in ``bart.py`` or ``bartizan.py``. ``output.py`` owns how words reach a user, ``client.py``
is the one way to the authority, ``profile.py`` the one place where credentials lie, ``agent.py`` where a key lives that
is in no file, ``ssh_config.py`` what is written for OpenSSH. ``login.py`` chooses among the ways to sign in, each in a
``by_….py``. Nothing imports this package; it may import all others.
"""
