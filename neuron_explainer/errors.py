"""Every exception that this package raises on purpose.

    NeuronExplainerError
    ├── UserError              bad input: one line, exit code 2, nothing on disk is touched
    │   ├── ConfigError        a setting, a flag or a name that is not known
    │   ├── WorkspaceError     a folder that is no workspace, is read-only, full or too new
    │   ├── RunMismatch        a run's folder holds the results of another configuration
    │   ├── RunLocked          another process is writing the same run
    │   ├── DataError          a file is missing, truncated or damaged
    │   ├── CorpusError        a corpus that cannot be read
    │   ├── SubjectError       a model, site, layer or neuron that cannot be had
    │   ├── PromptError        a template and its variables disagree
    │   ├── LLMError           a language model that cannot be had, or cannot do what is asked
    │   └── ServiceError       a server of data that cannot be reached, or refuses
    ├── NeuronFailure          one neuron cannot be processed; becomes a `Failure` row
    └── Deferred               one neuron is answered in a later round: no result and no failure

A message says what was wrong, where, and what to do about it.
"""


class NeuronExplainerError(Exception):
    """Root of the tree."""


class UserError(NeuronExplainerError):
    """Something that the user can put right."""


class ConfigError(UserError):
    """A setting, a flag or a name that is not known."""


class WorkspaceError(UserError):
    """A folder that cannot be used as a workspace."""


class RunMismatch(UserError):
    """A run's folder holds the results of another configuration."""


class RunLocked(UserError):
    """Another process is writing the same run."""


class DataError(UserError):
    """A file is missing, truncated or damaged."""


class CorpusError(UserError):
    """A corpus that cannot be read."""


class SubjectError(UserError):
    """A model, site, layer or neuron that cannot be had."""


class PromptError(UserError):
    """A template and its variables disagree."""


class LLMError(UserError):
    """A language model that cannot be had, or cannot do what is asked."""


class ServiceError(UserError):
    """A server of data that cannot be reached, or refuses."""


class NeuronFailure(NeuronExplainerError):
    """One neuron cannot be processed; the run goes on and keeps `cause` and the message."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Deferred(NeuronExplainerError):
    """One neuron's answer comes later; until then there is nothing to write about it."""
