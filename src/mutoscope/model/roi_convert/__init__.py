"""ROIs from and to other programs' forms: ImageJ, QuPath's GeoJSON, label images, OME-XML; and the pixels they cover.

All of it works on bytes, text and arrays; no file is opened. What each form cannot hold is listed in ``docs/rois.md``.
"""

from mutoscope.model.roi_convert.geojson import from_geojson, to_geojson
from mutoscope.model.roi_convert.imagej import from_imagej, to_imagej, to_imagej_roi
from mutoscope.model.roi_convert.labels import from_labels, to_labels
from mutoscope.model.roi_convert.omexml import from_ome_xml, ome_elements, to_ome_xml
from mutoscope.model.roi_convert.raster import area_px, covered, mask_of, outlines

__all__ = [
    "area_px",
    "covered",
    "from_geojson",
    "from_imagej",
    "from_labels",
    "from_ome_xml",
    "mask_of",
    "ome_elements",
    "outlines",
    "to_geojson",
    "to_imagej",
    "to_imagej_roi",
    "to_labels",
    "to_ome_xml",
]
