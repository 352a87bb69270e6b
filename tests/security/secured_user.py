"""Who the tests are to the secured broker."""

import secrets

USER = "svc"
PASSWORD = "canary-right-" + secrets.token_hex(8)
