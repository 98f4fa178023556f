"""The one exception of training that is meant for the user's eyes."""


class TrainingError(Exception):
    """Something that the user can put right. The message is one sentence that says what and how; the commands
    print it without a traceback and exit with 2.
    """
