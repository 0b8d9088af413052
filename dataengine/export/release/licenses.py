"""What the licences of data allow, and whether a release may carry the licence that it is given.

A table of conditions, not legal advice: where a licence is not in it, or a source has none, the user has to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from dataengine.errors import UserError


@dataclass(frozen=True)
class License:
    """A licence by its SPDX id (https://spdx.org/licenses/), or by a name of ours where there is none.

    What the licensor allows (commercial use, changed works) and asks for (attribution, the same licence for what is
    made from it); url: its text.
    """

    id: str
    url: str
    commercial: bool = True
    derivatives: bool = True
    attribution: bool = True
    share_alike: bool = False

    @property
    def hub_id(self) -> str:
        """The identifier in the front matter of a card (https://huggingface.co/docs/hub/repositories-licenses)."""
        return _HUB.get(self.id, self.id.lower())


_CC = "https://creativecommons.org/licenses"
ACADEMIC = "academic-use"  # DOTA, DIOR and HRSC2016 say so in words: no SPDX id, and no commercial use
_HUB = {"PDDL-1.0": "pddl", "ODC-By-1.0": "odc-by", "ODbL-1.0": "odbl"}
LICENSES = {
    license.id: license
    for license in (
        License("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/", attribution=False),
        License("PDDL-1.0", "https://opendatacommons.org/licenses/pddl/1-0/", attribution=False),
        License("CC-BY-2.0", f"{_CC}/by/2.0/"),
        License("CC-BY-3.0", f"{_CC}/by/3.0/"),
        License("CC-BY-4.0", f"{_CC}/by/4.0/"),
        License("ODC-By-1.0", "https://opendatacommons.org/licenses/by/1-0/"),
        License("CDLA-Permissive-1.0", "https://cdla.dev/permissive-1-0/"),
        License("CDLA-Permissive-2.0", "https://cdla.dev/permissive-2-0/", attribution=False),
        License("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
        License("MIT", "https://opensource.org/license/mit"),
        License("CC-BY-SA-3.0", f"{_CC}/by-sa/3.0/", share_alike=True),
        License("CC-BY-SA-4.0", f"{_CC}/by-sa/4.0/", share_alike=True),
        License("ODbL-1.0", "https://opendatacommons.org/licenses/odbl/1-0/", share_alike=True),
        License("CC-BY-NC-3.0", f"{_CC}/by-nc/3.0/", commercial=False),
        License("CC-BY-NC-4.0", f"{_CC}/by-nc/4.0/", commercial=False),
        License("CC-BY-NC-SA-3.0", f"{_CC}/by-nc-sa/3.0/", commercial=False, share_alike=True),
        License("CC-BY-NC-SA-4.0", f"{_CC}/by-nc-sa/4.0/", commercial=False, share_alike=True),
        License("CC-BY-ND-4.0", f"{_CC}/by-nd/4.0/", derivatives=False),
        License("CC-BY-NC-ND-4.0", f"{_CC}/by-nc-nd/4.0/", commercial=False, derivatives=False),
        License(ACADEMIC, "", commercial=False),
    )
}
_KNOWN = {name.lower(): license for name, license in LICENSES.items()} | {"cc0": LICENSES["CC0-1.0"]}


@dataclass(frozen=True)
class Source:
    """A third-party source of a release. what: its role ("renderer", "layouts", "scenes"). license: as stated, "" where
    unknown. url: where it comes from."""

    what: str
    name: str
    license: str
    url: str = ""


def find_license(name: str) -> License | None:
    """The licence with a common spelling of its name, None if unknown.

    >>> find_license("CC BY 4.0").id
    'CC-BY-4.0'
    """
    return _KNOWN.get("-".join(name.replace("_", " ").split()).lower())


def release_license(name: str) -> License:
    """The licence of a release. Raises UserError for an unknown licence and for academic use only."""
    found = find_license(name)
    if found is None or found.id == ACADEMIC:
        given = ", ".join(license.id.lower() for license in LICENSES.values() if license.id != ACADEMIC)
        raise UserError(f"--license {name}: not in the table of licences; choose one of {given}.")
    return found


def conflicts(sources: list[Source], release: License) -> list[str]:
    """One sentence for each source whose licence does not permit a release under `release`, in order."""
    return [sentence for source in sources if (sentence := _conflict(source, release))]


def _conflict(source: Source, release: License) -> str:
    what = f"the {source.what} ({source.name})"
    found = find_license(source.license)
    if found is None:
        stated = f"the licence {source.license!r}, which is not in the table" if source.license else "no known licence"
        return f"{what} has {stated}: state it with --source-license"
    if not found.derivatives:
        return f"{what} may not be changed ({found.id}), and images made from it are derivative works"
    if found.share_alike and found.id != release.id:
        return f"{what} is {found.id}, which requires the same licence, not {release.id}"
    if not found.commercial and release.commercial:
        return f"{what} may not be used commercially ({found.id}), which {release.id} would allow"
    if found.attribution and not release.attribution:
        return f"{what} requires attribution ({found.id}), which {release.id} does not require"
    return ""
