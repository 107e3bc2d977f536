"""Places and jurisdictions: where a process is, and which rules that makes true.

A place is a path that starts with a country, or with a group and then a country: "de", "eu/de", "us/va", "eu/de/he".
A jurisdiction is a group, a country, or a path below a country. Countries are ISO 3166-1 alpha-2, subdivisions
ISO 3166-2 without the country, both in lower case.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from enginehouse.contract import RequestError

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is.

    Attributes:
        label: as its operator wrote it.
        path: from the country down, for example "us/va".
        within: every jurisdiction that contains the place: the groups of its country, and each prefix of its path.
    """

    label: str
    path: str
    within: frozenset[str]


@dataclass(frozen=True, slots=True)
class Jurisdictions:
    """The tree: the built-in groups and the user's own (name to countries)."""

    groups: Mapping[str, frozenset[str]] = field(default_factory=lambda: GROUPS)

    def place(self, label: str) -> Place:
        """Reads a place.

        Raises:
            RequestError: the label names no country, or one outside the group it is written under.
        """
        path = self.jurisdiction(label)
        if path in self.groups:
            raise RequestError(f"place {label!r}: a place names its country too, for example '{path}/xx'")
        segments = path.split("/")
        prefixes = {"/".join(segments[: count + 1]) for count in range(len(segments))}
        groups = {name for name, countries in self.groups.items() if segments[0] in countries}
        return Place(label, path, frozenset(prefixes | groups))

    def place_or_nowhere(self, label: str) -> Place | None:
        """Reads a place that somebody else labelled. None, which qualifies for nothing, when the label is no place."""
        try:
            return self.place(label)
        except RequestError:
            return None

    def jurisdiction(self, name: str) -> str:
        """The one spelling of a jurisdiction: a group's name, or a path from the country down ("eu/de" is "de").

        Raises:
            RequestError: no such group or country, or a country outside the group it is written under.
        """
        segments = name.strip().lower().split("/")
        if not all(segment and segment.replace("-", "").isalnum() for segment in segments):
            raise RequestError(f"jurisdiction {name!r}: expected segments of letters, digits and '-' joined by '/'")
        group = segments[0]
        if group in self.groups:
            if len(segments) == 1:
                return group
            segments = segments[1:]
            if segments[0] not in self.groups[group]:
                raise RequestError(f"jurisdiction {name!r}: {segments[0]!r} is not a country of {group!r}")
        if segments[0] not in COUNTRIES:
            known = ", ".join(sorted(self.groups))
            raise RequestError(
                f"jurisdiction {name!r}: {segments[0]!r} is neither a country (ISO 3166-1 alpha-2) "
                f"nor one of the groups {known}"
            )
        return "/".join(segments)


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
