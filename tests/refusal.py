"What an action says when it refuses."

import pytest

from speciarl.core.scale import UserError


def message(action, *args, kind: type[UserError] = UserError, **kwargs) -> str:
    "The message of the `UserError` that `action(*args, **kwargs)` raises, which must be one line."
    with pytest.raises(kind) as caught:
        action(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
