"""What can go wrong in the trainer."""


class TrainerError(Exception):
    """The user can mend this: one line that says what is wrong and what to do. Exit code 2."""


class TrainingFailedError(Exception):
    """The training itself went wrong, with input that was good. Exit code 1."""
