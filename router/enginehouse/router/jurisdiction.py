"""Places and jurisdictions: where a process is, and which rules that makes true.

A place is a path that starts with a country, or with a group and then a country ("de", "eu/de", "us/va", "eu/de/he"),
or a cloud region ("aws:eu-central-1"). A jurisdiction is a group, a country, a path below a country, or a cloud region.
Countries are ISO 3166-1 alpha-2, the segment below them ISO 3166-2 without the country, both in lower case. What lies
below a subdivision is the operator's own to name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from enginehouse.contract import RequestError
from enginehouse.router.regions import REGIONS, is_region, region_path
from enginehouse.router.subdivisions import OWN_COUNTRY, SUBDIVISIONS

# ISO 3166-1 alpha-2, officially assigned codes.
_ISO_3166_1 = """
    ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs bt
    bv bw by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg eh
    er es et fi fj fk fm fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht
    hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls
    lt lu lv ly ma mc md me mf mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni
    nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg
    sh si sj sk sl sm sn so sr ss st sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug
    um us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
"""
COUNTRIES = frozenset(_ISO_3166_1.split())
# Treaty on European Union, Article 52 (member states since 2020-02-01).
_EU = "at be bg cy cz de dk ee es fi fr gr hr hu ie it lt lu lv mt nl pl pt ro se si sk"
# Agreement on the European Economic Area, Article 2; EFTA Convention, Article 1.
GROUPS: Mapping[str, frozenset[str]] = {
    "eu": frozenset(_EU.split()),
    "eea": frozenset(_EU.split()) | {"is", "li", "no"},
    "efta": frozenset({"ch", "is", "li", "no"}),
}
_GROUP_NAME = re.compile(r"[a-z][a-z0-9-]{1,39}")
_SUBDIVISIONS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is.

    Attributes:
        label: as its operator wrote it.
        path: from the country down, for example "us/va".
        within: every jurisdiction that contains the place: the groups of its country, each prefix of its path, and its
            cloud region.
        perhaps_within: groups and cloud regions that may contain it, and which it is too vague to be surely outside of.
    """

    label: str
    path: str
    within: frozenset[str]
    perhaps_within: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Jurisdictions:
    """The tree: countries, what lies below them, and groups of any of these.

    Attributes:
        groups: the built-in groups and the user's own. A member is a country, a path below one, a cloud region, or
            another group.

    Raises:
        RequestError: a group has the name of a country, a member that is no jurisdiction, or itself for a member.
    """

    groups: Mapping[str, frozenset[str]] = field(default_factory=lambda: GROUPS)
    _members: Mapping[str, frozenset[str]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Flattens the groups: afterwards no member is a group."""
        object.__setattr__(self, "_members", {})
        object.__setattr__(self, "_members", {name: self._flattened(name, ()) for name in self.groups})

    def place(self, label: str) -> Place:
        """Reads a place.

        Raises:
            RequestError: the label names no country or known cloud region, or one outside the group it is under.
        """
        name = self.jurisdiction(label)
        if name in self.groups:
            raise RequestError(f"place {label!r}: a place names its country too, for example '{name}/xx'")
        region = name if is_region(name) else ""
        path = region_path(region) if region else name
        within = _prefixes(path) | ({region} if region else set())
        perhaps = set() if region else {other for other, at in REGIONS.items() if _is_at_or_below(at, path)}
        groups = {group for group, members in self._members.items() if not members.isdisjoint(within)}
        vague = {
            group
            for group, members in self._members.items()
            if group not in groups and any(one in perhaps or one.startswith(path + "/") for one in members)
        }
        return Place(label, path, frozenset(within | groups), frozenset(perhaps | vague))

    def place_or_nowhere(self, label: str) -> Place | None:
        """Reads a place that somebody else labelled. None, which qualifies for nothing, when the label is no place."""
        try:
            return self.place(label)
        except RequestError:
            return None

    def jurisdiction(self, name: str) -> str:
        """The one spelling of a jurisdiction.

        A group's name, a path from the country down ("eu/de" is "de"), or a cloud region ("aws:eu-central-1").

        Raises:
            RequestError: no such group, country, subdivision or region, or a country outside the group it is under.
        """
        written = name.strip().lower()
        if is_region(written):
            region_path(written)
            return written
        segments = written.split("/")
        if not all(segment and segment.replace("-", "").isalnum() and segment.isascii() for segment in segments):
            raise RequestError(
                f"jurisdiction {name[:80]!r}: expected segments of letters, digits and '-' joined by '/', "
                "or a cloud region like 'aws:eu-central-1'"
            )
        group = segments[0] if segments[0] in self.groups else ""
        if group and len(segments) == 1:
            return group
        path = self._path(name, segments[1:] if group else segments)
        if group and self._members[group].isdisjoint(_prefixes(path)):
            raise RequestError(f"jurisdiction {name[:80]!r}: {path!r} is not in {group!r}")
        return path

    def _path(self, name: str, segments: list[str]) -> str:
        country = segments[0]
        if country not in COUNTRIES:
            raise RequestError(
                f"jurisdiction {name[:80]!r}: {country[:40]!r} is neither a country (ISO 3166-1 alpha-2) "
                f"nor one of the groups {', '.join(sorted(self.groups))}{_near(country, self.groups)}"
            )
        if len(segments) > 1:
            _check_subdivision(name, country, segments[1])
        return "/".join(segments)

    def _flattened(self, name: str, above: tuple[str, ...]) -> frozenset[str]:
        if name in above:
            raise RequestError(f"group {name!r} contains itself: {' > '.join((*above[above.index(name) :], name))}")
        check_group_name(name)
        members: set[str] = set()
        for member in sorted(self.groups[name]):
            written = member.strip().lower()
            if written in self.groups:
                members |= self._flattened(written, (*above, name))
            else:
                members.add(self._member(name, written, above))
        return frozenset(members)

    def _member(self, name: str, member: str, above: tuple[str, ...]) -> str:
        try:
            if is_region(member):
                region_path(member)
                return member
            group, _, rest = member.partition("/")
            if group not in self.groups:
                return self._path(member, member.split("/"))
            path = self._path(member, rest.split("/"))
        except RequestError as error:
            raise RequestError(f"group {name!r}: {error.message}") from error
        if self._flattened(group, (*above, name)).isdisjoint(_prefixes(path)):
            raise RequestError(f"group {name!r}: jurisdiction {member[:80]!r}: {path!r} is not in {group!r}")
        return path


def check_group_name(name: str) -> None:
    """A group is named by letters, digits and '-', and not like a country.

    Raises:
        RequestError: it is not.
    """
    if not _GROUP_NAME.fullmatch(name):
        raise RequestError(f"group {name[:80]!r}: write a name of 2 to 40 of a-z, 0-9 and '-', a letter first")
    if name in COUNTRIES:
        raise RequestError(f"group {name!r} has the name of a country")


def _check_subdivision(name: str, country: str, code: str) -> None:
    path = f"{country}/{code}"
    if path in OWN_COUNTRY:
        raise RequestError(
            f"jurisdiction {name[:80]!r}: {path!r} has a country code of its own; write {OWN_COUNTRY[path]!r}"
        )
    known = SUBDIVISIONS.get(country, frozenset())
    if code in known:
        return
    if not known:
        raise RequestError(f"jurisdiction {name[:80]!r}: ISO 3166-2 knows no subdivision of {country!r}")
    shown = ", ".join(sorted(known)[:_SUBDIVISIONS_SHOWN]) + (", ..." if len(known) > _SUBDIVISIONS_SHOWN else "")
    raise RequestError(
        f"jurisdiction {name[:80]!r}: {code[:40]!r} is not a subdivision of {country!r} (ISO 3166-2); it has {shown}"
    )


def _near(name: str, groups: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(groups), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _prefixes(path: str) -> set[str]:
    segments = path.split("/")
    return {"/".join(segments[: count + 1]) for count in range(len(segments))}


def _is_at_or_below(path: str, other: str) -> bool:
    return path == other or path.startswith(other + "/")


@dataclass(frozen=True, slots=True)
class Residency:
    """A rule over places, spelled as `Jurisdictions` does. `deny` wins; an empty `allow` allows any labelled place."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    def permits(self, place: Place | None) -> bool:
        """Whether data under this rule may be at `place`. An unlabelled place is nowhere and never qualifies."""
        if place is None:
            return False
        if self.deny and (self.deny & place.within or self._may_be_denied(place)):
            return False
        return not self.allow or not self.allow.isdisjoint(place.within)

    def _may_be_denied(self, place: Place) -> bool:
        # "us" may well be in "us/va": a place vaguer than a denied jurisdiction cannot prove that it is outside.
        if not self.deny.isdisjoint(place.perhaps_within):
            return True
        below = place.path + "/"
        return any(denied.startswith(below) for denied in self.deny)

    def __str__(self) -> str:
        parts = [f"allow {', '.join(sorted(self.allow))}"] if self.allow else []
        parts += [f"deny {', '.join(sorted(self.deny))}"] if self.deny else []
        return "; ".join(parts) or "any labelled place"


def residency(jurisdictions: Jurisdictions, allow: Iterable[str], deny: Iterable[str]) -> Residency:
    """Makes a rule from names as users write them.

    Raises:
        RequestError: a name is no jurisdiction.
    """
    return Residency(
        frozenset(jurisdictions.jurisdiction(name) for name in allow),
        frozenset(jurisdictions.jurisdiction(name) for name in deny),
    )
