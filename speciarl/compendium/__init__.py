"The paper, made again."

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .artefacts import VERSIONS as VERSIONS
    from .audit import trace as trace
    from .audit import verify as verify
    from .lab import Desk as Desk
    from .lab import Lab as Lab
    from .profile import Design as Design
    from .profile import Job as Job
    from .profile import Profile as Profile
    from .profile import load_profile as load_profile
    from .reproduce import make_plan as make_plan
    from .reproduce import publish as publish

# `reproduce` is not among them: its module has the same name, and is what `speciarl.compendium.reproduce` means.
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Profile": "speciarl.compendium.profile",
        "load_profile": "speciarl.compendium.profile",
        "Design": "speciarl.compendium.profile",
        "Job": "speciarl.compendium.profile",
        "VERSIONS": "speciarl.compendium.artefacts",
        "Lab": "speciarl.compendium.lab",
        "Desk": "speciarl.compendium.lab",
        "make_plan": "speciarl.compendium.reproduce",
        "publish": "speciarl.compendium.reproduce",
        "trace": "speciarl.compendium.audit",
        "verify": "speciarl.compendium.audit",
    },
)
