"""The public cloud regions of AWS, Google Cloud and Azure, and where each is.

A region is written "<provider>:<region>", for example "aws:eu-central-1". It is where its provider says it is: in a
country, and in a state or province only where the provider names that itself. A city is not enough: data centers stand
around it, and a border may be near. Regions for one government's secrets are not listed.

Where each row comes from:
    aws: the AWS SDK's own table of partitions (botocore 1.44.5, `data/partitions.json`).
    gcp: https://cloud.google.com/compute/docs/regions-zones, as of 2025; compare it again before relying on a new row.
    azure: https://learn.microsoft.com/azure/reliability/regions-list, as of March 2025, and for the clouds of
        governments and China what their regions' names say; compare it again before relying on a new row.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from enginehouse.contract import RequestError

_AWS = """
    za: af-south-1
    hk: ap-east-1
    tw: ap-east-2
    jp: ap-northeast-1 ap-northeast-3
    kr: ap-northeast-2
    in: ap-south-1 ap-south-2
    sg: ap-southeast-1
    au: ap-southeast-2 ap-southeast-4
    id: ap-southeast-3
    my: ap-southeast-5
    nz: ap-southeast-6
    th: ap-southeast-7
    ca: ca-central-1 ca-west-1
    de: eu-central-1 eusc-de-east-1
    ch: eu-central-2
    se: eu-north-1
    it: eu-south-1
    es: eu-south-2
    ie: eu-west-1
    gb: eu-west-2
    fr: eu-west-3
    il: il-central-1
    ae: me-central-1
    bh: me-south-1
    sa: me-west-1
    mx: mx-central-1
    br: sa-east-1
    cl: sa-west-1
    us/va: us-east-1
    us/oh: us-east-2
    us/ca: us-west-1
    us/or: us-west-2
    us: us-gov-east-1 us-gov-west-1
    cn: cn-north-1 cn-northwest-1
"""
_GCP = """
    za: africa-south1
    tw: asia-east1
    hk: asia-east2
    jp: asia-northeast1 asia-northeast2
    kr: asia-northeast3
    in: asia-south1 asia-south2
    sg: asia-southeast1
    id: asia-southeast2
    au: australia-southeast1 australia-southeast2
    pl: europe-central2
    fi: europe-north1
    se: europe-north2
    es: europe-southwest1
    be: europe-west1
    gb: europe-west2
    de: europe-west3 europe-west10
    nl: europe-west4
    ch: europe-west6
    it: europe-west8 europe-west12
    fr: europe-west9
    qa: me-central1
    sa: me-central2
    il: me-west1
    ca/qc: northamerica-northeast1
    ca/on: northamerica-northeast2
    mx: northamerica-south1
    br: southamerica-east1
    cl: southamerica-west1
    us/ia: us-central1
    us/sc: us-east1
    us/va: us-east4
    us/oh: us-east5
    us/tx: us-south1
    us/or: us-west1
    us/ca: us-west2
    us/ut: us-west3
    us/nv: us-west4
"""
_AZURE = """
    au: australiacentral australiacentral2
    au/nsw: australiaeast
    au/vic: australiasoutheast
    at: austriaeast
    be: belgiumcentral
    br/sp: brazilsouth
    br: brazilsoutheast
    ca: canadacentral canadaeast
    cl: chilecentral
    hk: eastasia
    fr: francecentral francesouth
    de: germanynorth germanywestcentral
    in: centralindia jioindiacentral jioindiawest southindia westindia
    id: indonesiacentral
    il: israelcentral
    it: italynorth
    jp: japaneast japanwest
    kr: koreacentral koreasouth
    my: malaysiawest
    mx/que: mexicocentral
    nz: newzealandnorth
    ie: northeurope
    no: norwayeast norwaywest
    pl: polandcentral
    qa: qatarcentral
    za: southafricanorth southafricawest
    sg: southeastasia
    es: spaincentral
    se: swedencentral swedensouth
    ch: switzerlandnorth switzerlandwest
    ae: uaecentral uaenorth
    gb: uksouth ukwest
    nl: westeurope
    us/va: eastus eastus2 usgovvirginia
    us/ia: centralus
    us/il: northcentralus
    us/tx: southcentralus usgovtexas
    us/wy: westcentralus
    us/ca: westus
    us/wa: westus2
    us/az: westus3 usgovarizona
    us: usdodcentral usdodeast
    cn: chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 chinanorth3
"""
_TABLES = {"aws": _AWS, "gcp": _GCP, "azure": _AZURE}
_MATCHES_MAX = 3


def _read() -> Iterator[tuple[str, str]]:
    for provider, table in _TABLES.items():
        for line in table.split("\n"):
            path, _, names = line.strip().partition(": ")
            for name in names.split():
                yield f"{provider}:{name}", path


REGIONS: Mapping[str, str] = dict(_read())
"""Where each region is, from the country down, by its whole name: "aws:us-east-1" is "us/va"."""


def is_region(name: str) -> bool:
    """Whether `name` is written as a cloud region, known or not."""
    return ":" in name


def region_path(name: str) -> str:
    """Where a region is, for example "us/va".

    Raises:
        RequestError: there is no such provider, or no such region of it; close ones are named.
    """
    path = REGIONS.get(name)
    if path is not None:
        return path
    provider = name.partition(":")[0]
    if provider not in _TABLES:
        raise RequestError(f"{name[:80]!r}: {provider[:40]!r} is not a cloud; those known are {', '.join(_TABLES)}")
    near = get_close_matches(name, REGIONS, n=_MATCHES_MAX, cutoff=0.6)
    advice = f"; near it: {', '.join(near)}" if near else ""
    raise RequestError(
        f"{name[:80]!r} is not a known region of {provider}{advice}. A region that is not listed is nowhere; "
        "write its country instead"
    )
