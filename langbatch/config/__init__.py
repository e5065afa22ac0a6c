"""Settings, targets and credentials: the only package that reads environment variables.

An explicit argument beats the environment, which beats the profile, which beats the default. A variable that
is set to nothing counts as unset.
"""
