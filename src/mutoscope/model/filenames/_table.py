"""The vendors that are known: a visible table of patterns, most telling first; ``docs/filenames.md`` has examples of each."""

from __future__ import annotations

from mutoscope.model.filenames.patterns import Pattern

__all__ = ["VENDORS"]

_WELL = r"(?P<well>[A-Z]{1,2}[0-9]{1,2})"
_TIFF = r"\.(?i:tiff?)"
_GUID = r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
_STEPS = (r"(?i:TimePoint)_(?P<t>[0-9]+)", r"(?i:ZStep)_(?P<z>[0-9]+)")
_PHENIX = (
    r"r(?P<row_number>[0-9]{2,3})c(?P<column>[0-9]{2,3})f(?P<field>[0-9]{2,4})p(?P<z>[0-9]{2,4})-"
    r"ch(?P<channel>[0-9]{1,2})sk(?P<t>[0-9]+)fk[0-9]+fl[0-9]+" + _TIFF
)

VENDORS: dict[str, tuple[Pattern, ...]] = {
    # Revvity (PerkinElmer) Opera Phenix and Operetta, written by Harmony. The name has no plate; its folder may.
    "opera_phenix": (
        Pattern(
            file=_PHENIX,
            folders=(r"(?P<source>.+)__[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}_[0-9]{2}_[0-9]{2}-Measurement ?[0-9]+.*",),
            template="r{row_number:2}c{column:2}f{field:2}p{z:2}-ch{channel:1}sk{t:1}fk1fl1.tiff",
        ),
        Pattern(file=r"Index(?:\.idx|\.flex|\.ref)?\.xml", kind="metadata"),
    ),
    # Yokogawa CellVoyager (CV7000, CV8000) and CQ1/CQ3K, which numbers its wells from 1, row by row.
    "cellvoyager": (
        Pattern(
            file=rf"(?P<source>.+)_{_WELL}_T(?P<t>[0-9]{{4}})F(?P<field>[0-9]{{3,4}})L[0-9]{{2}}A[0-9]{{2}}"
            r"Z(?P<z>[0-9]{2,3})C(?P<channel>[0-9]{1,2})\.(?i:tiff?|png)",
            template="{source}_{row}{column:2}_T{t:4}F{field:3}L01A01Z{z:2}C{channel:2}.tif",
        ),
        Pattern(
            file=r"W(?P<well_number>[0-9]{4})F(?P<field>[0-9]{4})T(?P<t>[0-9]{4})Z(?P<z>[0-9]{3})C(?P<channel>[0-9]{1,2})"
            + _TIFF,
            folders=(r"(?P<projection>Projection)",),
        ),
        Pattern(file=r".+\.(?:mlf|mrf|mes|wpi|wpp)", kind="metadata"),
    ),
    # Molecular Devices ImageXpress. First HCS.ai, which counts all from 0, then MetaXpress: exported (TimePoint_/ZStep_
    # folders, ZStep_0 a projection) or from the data base (a GUID glued to the wavelength's number).
    "imagexpress": (
        Pattern(
            file=rf"(?P<source>.+)_t(?P<t>[0-9]+)_{_WELL}_s(?P<field>[0-9]+)_w(?P<channel>[0-9]+)_z(?P<z>[0-9]+)" + _TIFF,
            folders=(r"timepoint(?P<t>[0-9]+)",),
            counted_from_0=("t", "field", "channel", "z"),
        ),
        Pattern(
            file=rf"(?:(?P<source>.+?)_)??{_WELL}(?:_s(?P<field>[0-9]+))?_w(?P<channel>[0-9]{{1,2}})(?:_z(?P<z>[0-9]+))?"
            rf"(?:_t(?P<t>[0-9]+))?(?P<thumbnail>_thumb)?(?:{_GUID})?" + _TIFF,
            folders=_STEPS,
            template="[{source}_]{row}{column:2}[_s{field:1}]_w{channel:1}[_z{z:1}][_t{t:1}].tif",
        ),
        Pattern(
            file=rf"(?:(?P<source>.+?)_)??{_WELL}_s(?P<field>[0-9]+)(?:_z(?P<z>[0-9]+))?(?:_t(?P<t>[0-9]+))?"
            rf"(?P<thumbnail>_thumb)?(?:{_GUID})?" + _TIFF,
            folders=_STEPS,
            template="[{source}_]{row}{column:2}_s{field:1}[_z{z:1}][_t{t:1}].tif",
        ),
        Pattern(file=r"(?P<source>.+)\.(?i:HTD)", folders=_STEPS, kind="metadata"),
    ),
    # Thermo Fisher Cellomics ArrayScan.
    "cellomics": (
        Pattern(
            file=r"(?P<source>.+)_(?P<well>[A-Z]{1,2}[0-9]{2})f(?P<field>[0-9]{2,3})d(?P<channel>[0-9])\.(?i:C01|DIB|tiff?)",
            counted_from_0=("field", "channel"),
            template="{source}_{row}{column:2}f{field:2}d{channel:1}.C01",
        ),
    ),
    # GE InCell Analyzer.
    "incell": (
        Pattern(
            file=r"(?P<row>[A-Z]{1,2}) - (?P<column>[0-9]{1,2})\(fld (?P<field>[0-9]+) wv (?P<channel>[^)]+?)"
            r"(?: z (?P<z>[0-9]+))?(?: time (?P<t>[0-9]+)(?: - [0-9]+ ms)?)?\)" + _TIFF,
            template="{row} - {column:1}(fld {field:1} wv {channel}[ z {z:1}]).tif",
        ),
    ),
    # Evident (Olympus) scanR.
    "scanr": (
        Pattern(
            file=r"(?P<well>[A-Z]{1,2}[0-9]{1,2})--W(?P<well_number>[0-9]{5})--P(?P<field>[0-9]{5})--Z(?P<z>[0-9]{5})--"
            r"T(?P<t>[0-9]{5})--(?P<channel>.+)" + _TIFF,
            counted_from_0=("z", "t"),
        ),
    ),
    # CellProfiler's fly example: an image set, no well.
    "cellprofiler_fly": (
        Pattern(
            file=r"(?P<source>[0-9]+)_POS(?P<field>[0-9]{3})_(?P<channel>[A-Z])" + _TIFF,
            template="{source}_POS{field:3}_{channel}.TIF",
        ),
    ),
}
"""Parser name → its patterns, in the order in which ``auto`` asks them."""
