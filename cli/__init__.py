"""
The commands: ``bart`` for people who use Bartizan, ``bartizan`` for people who run it.

One file per command. Start in ``bart.py`` or ``bartizan.py``. ``output.py`` owns how words reach a user, ``client.py``
is the one way to the authority, ``profile.py`` the one place where credentials lie, ``ssh_config.py`` what is written
for OpenSSH. Nothing imports this package; it may import all others.
"""
