"""
Ways to prove who one is, one file each; every one ends in an ``Identity``. Now: ``local`` (a password), and what
``provider`` promises, for ``oidc`` and ``github``, which share ``oauth`` and ask through ``fetch`` alone. The rules
for tokens are in ``id_token``.
"""
