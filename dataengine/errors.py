"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Bad input, said in one sentence that names the file, line or field and the mend.

    The command line prints the sentence and exits with status 2; it never shows a traceback for it.
    """
