"""The display model: which window, layer and index each item has, by its components and a `Display` alone.

Pure NumPy, with no window system: every viewer shows what this holds. Not safe for several threads at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.viewers.display import COMPONENTS, Arrangement, Display, Percentiles
from mutoscope.viewers.planes import AxisValue, AxisValues, PlaneArray, value_key
from mutoscope.viewers.roi_pack import PackedRois
from mutoscope.viewers.wire import Value

__all__ = ["Changes", "DisplayModel", "ImageLayer", "RoiLayer"]

Place = Mapping[str, Value]
_Parts = tuple[tuple[str, Value], ...]
_Form = tuple[np.dtype[Any], int, tuple[int, ...] | None]
"""Dtype, colours, and the size where each has a layer of its own."""
_FOLDED: dict[Arrangement, str] = {"frame": "T", "slice": "Z", "channel": "C"}
"""ImageJ's axes, outermost first: components of one of these kinds share it."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a viewer knows of a layer, as it is now.

    Parameters
    ----------
    id : str
        The same as long as the layer is there.
    name : str
        What a person reads.
    window_id, window : str
        The window that it belongs to, and its title.
    order : int
        Its number among the layers of its window, from the bottom.
    components : dict
        What all of it has in common: ``{"source": "raw", "channel": 2}``.
    axes : tuple of str
        Before (y, x), outermost first: components, or ImageJ's ``"T"``, ``"Z"``, ``"C"`` where those are asked for.
    axis_components : tuple of tuple of str
        The components that make each axis: one, or several for ImageJ's.
    axis_names : tuple of str
        What a person calls these axes, y and x.
    values : tuple of tuple
        What the indices of each axis stand for: a tuple with a value of each component that makes the axis.
    scale : tuple of float
        The step along each axis, y and x, in the units of `units`.
    units : tuple of str
        ``"µm"``, ``"s"``, or ``""`` where the step is not known.
    window_axes : tuple of str
        The axes of all layers of the window, outermost first: a layer without one of them belongs to each of its indices.
    window_shape : tuple of int
        How long these are.
    live : bool
        Whether it is of a running scope: it has no axes before (y, x), its content is replaced by what is newest, and it stays
        when what was sent is cleared.
    """

    id: str
    name: str
    window_id: str
    window: str
    order: int
    components: dict[str, Value]
    axes: tuple[str, ...]
    axis_components: tuple[tuple[str, ...], ...]
    axis_names: tuple[str, ...]
    values: tuple[tuple[AxisValue, ...], ...]
    scale: tuple[float, ...]
    units: tuple[str, ...]
    window_axes: tuple[str, ...]
    window_shape: tuple[int, ...]
    live: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageLayer(Layer):
    """Images that share a layer.

    Parameters
    ----------
    array : ndarray
        Shape ``(*axes, y, x)``, or ``(*axes, y, x, colour)`` where `rgb`. A view of memory into which later planes are written,
        too; it stays the same one until `moved`.
    rgb : bool
        Whether the last axis is colour.
    missing : ndarray of bool
        Which planes have not come, shape ``axes``; their pixels are 0.
    contrast : dict of channel to (low, high)
        In counts; under None where the layer is of one channel, or where it is not known.
    luts : dict of channel to str
        The names of look-up tables that a person has chosen.
    gamma : float or None
        As chosen.
    changed : frozenset of tuple
        The indices of the planes that came since the last time.
    moved : bool
        Whether `array` is another one than the last time.
    frame_id : int
        Of a live layer: the frame that its pixels are. 0 of all others.
    monotonic_ns : int
        Of a live layer: when that frame reached the camera's process, by the clock of its computer; 0 where it is not known.
    """

    array: NDArray[Any]
    rgb: bool
    missing: NDArray[np.bool_]
    contrast: dict[Value | None, tuple[float, float]]
    luts: dict[Value | None, str]
    gamma: float | None
    changed: frozenset[tuple[int, ...]]
    moved: bool
    frame_id: int = 0
    monotonic_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class RoiLayer(Layer):
    """ROIs that share a layer.

    Parameters
    ----------
    rois : dict of index to PackedRois
        The ROIs of each plane that has any. An index has None for an axis on all of whose planes they lie. Of a live layer: all
        of them under the index ``()``, which is there also when there are none.
    marks : {"rois", "points", "tracks"}
        What they are. ``"points"``: one ROI of kind ``points``, the rows of a table that belong to the frame shown.
        ``"tracks"``: a polyline for each track, oldest vertex first. These two are live, come up to 10 times a second with
        thousands of vertices, and nobody edits them: read `PackedRois.all_vertices` and `PackedRois.offsets`, and make no Roi.
    editable : bool
        Whether what a person draws, changes or removes in this layer is told by `ViewerCore.roi_changed` and `roi_removed`. The
        viewer lets people draw in it also while it is empty. It may become editable, or cease to be, at any time.
    """

    rois: dict[tuple[int | None, ...], PackedRois]
    marks: Literal["rois", "points", "tracks"] = "rois"
    editable: bool = False


@dataclass
class Changes:
    """What a viewer has to show: layers that are new or have changed, those that are gone, and the items that this shows."""

    images: list[ImageLayer] = field(default_factory=list)
    rois: list[RoiLayer] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.images or self.rois or self.removed)


@dataclass(frozen=True, eq=False)
class _Scheme:
    """What places have in common that name the same components: those that make windows and layers, outermost first, and the
    axes with the components of each."""

    window: tuple[str, ...]
    layer: tuple[str, ...]
    axes: tuple[str, ...]
    components: tuple[tuple[str, ...], ...]
    outer: tuple[str, ...]
    """Those of windows and of layers."""
    single: tuple[str, ...] | None
    """The component of each axis, if each is made by one that the places name."""

    def where(self, place: Place) -> tuple[AxisValue, ...]:
        """Return where a place is along the axes."""
        if self.single is not None:
            return tuple([(place[name],) for name in self.single])
        return tuple([tuple([place.get(name) for name in names]) for names in self.components])


class _Plan:
    """What a Display makes of components in this viewer."""

    def __init__(self, key: bytes, display: Display, defaults: Mapping[str, Arrangement]) -> None:
        self.key = key
        self.display = display
        self._defaults = defaults
        self._kinds: dict[str, Arrangement] = {}
        self._schemes: dict[tuple[str, ...], _Scheme] = {}
        self._percentiles: dict[Value | None, tuple[float, float] | None] = {}
        self.separate = display.sizes == "separate"
        known = sorted({*COMPONENTS, *display.others}, key=display.rank)
        self._folded = {axis: tuple(name for name in known if self._kind(name) == kind) for kind, axis in _FOLDED.items()}

    def _kind(self, component: str) -> Arrangement:
        kind = self._kinds.get(component)
        if kind is None:
            kind = self._kinds[component] = self.display.arrangement(component, self._defaults)
        return kind

    def axis_of(self, component: str) -> str:
        """Return the axis that a component belongs to; empty if it makes windows or layers."""
        kind = self._kind(component)
        return component if kind == "stack" else _FOLDED.get(kind, "")

    def components(self, axis: str) -> tuple[str, ...]:
        """Return the components that make an axis."""
        return self._folded.get(axis) or (axis,)

    def scheme(self, names: tuple[str, ...]) -> _Scheme:
        """Return what places that name these components have in common."""
        found = self._schemes.get(names)
        if found is None:
            found = self._schemes[names] = self._make_scheme(names)
        return found

    def _make_scheme(self, names: tuple[str, ...]) -> _Scheme:
        axes = tuple(sorted({axis for name in names if (axis := self.axis_of(name))}, key=self.axis_rank))
        ranked = sorted(names, key=self.display.rank)
        window = tuple(name for name in ranked if self._kind(name) == "window")
        layer = tuple(name for name in ranked if self._kind(name) == "layer")
        components = tuple(self.components(axis) for axis in axes)
        first = tuple(each[0] for each in components)
        single = first if all(len(each) == 1 for each in components) and set(first) <= set(names) else None
        return _Scheme(window, layer, axes, components, window + layer, single)

    def percentiles(self, channel: Value | None) -> tuple[float, float] | None:
        """Return the percentiles that are the limits of a channel's contrast; None where those are chosen."""
        if channel not in self._percentiles:
            chosen = self.display.contrast_of(channel)
            if isinstance(chosen, Percentiles):
                self._percentiles[channel] = chosen.low, chosen.high
            else:
                self._percentiles[channel] = (0.0, 100.0) if chosen == "auto" else None
        return self._percentiles[channel]

    def axis_rank(self, axis: str) -> tuple[Any, ...]:
        """Return what sorts axes, outermost first."""
        if axis in self._folded:
            return (2, "TZC".index(axis))
        return (1, *self.display.rank(axis))


class _Images:
    def __init__(self, id_: str, window: _Window, parts: _Parts, planes: PlaneArray, form: str) -> None:
        self.id = id_
        self.window = window
        self.parts = parts
        self.planes = planes
        self.form = form
        self.moved = True
        self.dirty = True


class _Rois:
    def __init__(self, id_: str, parts: _Parts) -> None:
        self.id = id_
        self.parts = parts
        self.sets: dict[tuple[tuple[str, AxisValue], ...], _RoiEntry] = {}
        """Whose ROIs lie at each place: those that came last."""
        self.dirty = True


class _Window:
    def __init__(self, id_: str, plan: _Plan, parts: _Parts) -> None:
        self.id = id_
        self.plan = plan
        self.parts = parts
        self.values: dict[str, AxisValues] = {}
        self.images: dict[tuple[_Parts, _Form], _Images] = {}
        self.rois: dict[_Parts, _Rois] = {}

    def axes(self) -> tuple[str, ...]:
        """Return the axes of all layers, outermost first."""
        return tuple(sorted(self.values, key=self.plan.axis_rank))

    def add_value(self, axis: str, value: AxisValue) -> bool:
        values = self.values.setdefault(axis, AxisValues())
        if value in values.index:
            return False
        values.add(value)
        for images in self.images.values():
            images.dirty = True
        for rois in self.rois.values():
            rois.dirty = True
        return True


@dataclass
class _RoiEntry:
    plan: _Plan
    source: str
    folder: str
    place: dict[str, Value]
    packed: PackedRois
    home: tuple[_Window, _Rois, tuple[tuple[str, AxisValue], ...]] | None = None


class DisplayModel:
    """Holds what a viewer shows.

    Parameters
    ----------
    defaults : mapping of component to arrangement
        What this viewer makes of components of which a Display says nothing; ``"stack"`` for those not named.
    """

    def __init__(self, defaults: Mapping[str, Arrangement]) -> None:
        self._defaults = dict(defaults)
        self._plans: dict[bytes, _Plan] = {}
        self._last: tuple[Display, _Plan] | None = None
        self._windows: dict[tuple[bytes, _Parts], _Window] = {}
        self._found: dict[tuple[Any, ...], _Images] = {}
        self._removed: list[str] = []
        self._made = 0
        self._folders: dict[tuple[bytes, str], set[str]] = {}
        self._entries: dict[tuple[bytes, str, str, bytes], _RoiEntry] = {}

    # -- items

    def put_image(
        self,
        display: Display,
        source: str,
        folder: str,
        place: Place,
        axes: Sequence[tuple[str, int]],
        pixels: NDArray[Any],
        rgb: bool = False,
    ) -> None:
        """Copy an image to its place, instead of what is there.

        Parameters
        ----------
        display : Display
            How it is arranged; items of equal displays share windows.
        source : str
            The step of the pipeline that made it.
        folder : str
            Where its files are: ROIs name this as the folder of their images.
        place : mapping of component to value
            Without the source.
        axes : sequence of (component, number of the first)
            Those of a stack, before (y, x), outermost first.
        pixels : ndarray
            Copied.
        rgb : bool
            Whether its last axis is colour.
        """
        plan = self._plan(display)
        if folder:
            self._learn(plan, folder, source)
        if not axes:
            self._put_plane(plan, {"source": source, **place}, pixels, rgb)
            return
        for index in np.ndindex(*pixels.shape[: len(axes)]):
            stack = {name: first + number for (name, first), number in zip(axes, index, strict=True)}
            self._put_plane(plan, {"source": source, **place, **stack}, pixels[index], rgb)

    def _put_plane(self, plan: _Plan, place: Place, plane: NDArray[Any], rgb: bool) -> None:
        scheme = plan.scheme(tuple(place))
        form = (plane.dtype, plane.shape[2] if rgb else 0, plane.shape[:2] if plan.separate else None)
        key = (scheme, form, *[place[name] for name in scheme.outer])
        layer = self._found.get(key)
        if layer is None:
            layer = self._found[key] = self._images(plan, scheme, place, form)
        planes, where = layer.planes, scheme.where(place)
        channel, source = place.get("channel"), str(place["source"])
        percentiles = plan.percentiles(channel)
        try:
            moved = planes.put(where, plane, channel, percentiles, source) if scheme.axes == planes.axes else None
            if moved is None:
                where = self._make_room(layer.window, layer, scheme, where)
                moved = planes.put(where, plane, channel, percentiles, source)
        except MemoryError:
            if not planes:
                del layer.window.images[layer.parts, form]
                self._found.clear()
            raise
        layer.moved |= bool(moved)
        layer.dirty = True

    def _images(self, plan: _Plan, scheme: _Scheme, place: Place, form: _Form) -> _Images:
        window = self._window(plan, tuple([(name, place[name]) for name in scheme.window]))
        parts = tuple([(name, place[name]) for name in scheme.layer])
        return window.images.get((parts, form)) or self._new_images(window, parts, form)

    def _new_images(self, window: _Window, parts: _Parts, form: _Form) -> _Images:
        planes = PlaneArray(form[0], form[1], window.plan.display.sizes == "rescale")
        layer = window.images[parts, form] = _Images(self._name(), window, parts, planes, _form_name(form))
        for other in window.images.values():
            other.dirty = True  # their names and order may be others now
        return layer

    def _make_room(
        self, window: _Window, layer: _Images, scheme: _Scheme, where: tuple[AxisValue, ...]
    ) -> tuple[AxisValue, ...]:
        """Have a place in a layer; returns it along the axes that the layer has then."""
        plan, said = window.plan, dict(zip(scheme.axes, where, strict=True))
        axes = tuple(sorted({*layer.planes.axes, *said}, key=plan.axis_rank))
        unsaid = {axis: (None,) * len(plan.components(axis)) for axis in axes}
        for axis in axes:
            window.add_value(axis, said.get(axis, unsaid[axis]))
            if axis not in layer.planes.axes and layer.planes:
                window.add_value(axis, unsaid[axis])
        self._arrange(window, layer, axes)
        return tuple(said.get(axis, unsaid[axis]) for axis in axes)

    def _arrange(self, window: _Window, layer: _Images | None = None, axes: tuple[str, ...] = ()) -> None:
        """Have all layers of a window follow its values; one for which there is no memory stays as it is, to be tried again."""
        failed: MemoryError | None = None
        for each in window.images.values():
            wanted = axes if each is layer else each.planes.axes
            try:
                changed, moved = each.planes.arrange(wanted, window.values)
            except MemoryError as error:
                failed = error
                continue
            each.dirty |= changed
            each.moved |= moved
        for rois in window.rois.values():
            rois.dirty = True
        if failed is not None:
            raise failed

    def put_rois(self, display: Display, source: str, folder: str, place: Place, rois: PackedRois) -> None:
        """Have these ROIs on a plane, instead of those that are there; an empty list clears it.

        `folder` names the images that they belong to: they lie on the source that sends images from there.
        """
        plan = self._plan(display)
        key = (plan.key, source, folder, msgspec.msgpack.encode(sorted(place.items())))
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _RoiEntry(plan, source, folder, dict(place), rois)
        entry.packed = rois
        self._house(entry)

    def _learn(self, plan: _Plan, folder: str, source: str) -> None:
        known = self._folders.setdefault((plan.key, folder), set())
        if source in known:
            return
        known.add(source)
        for entry in self._entries.values():
            if entry.plan is plan and entry.folder == folder:
                self._house(entry)

    def _house(self, entry: _RoiEntry) -> None:
        """Bring ROIs to the plane that they belong to by what is known now."""
        plan = entry.plan
        place = {"source": self._source_of(entry), **entry.place}
        scheme = plan.scheme(tuple(place))
        window = self._window(plan, tuple((name, place[name]) for name in scheme.window))
        parts = tuple((name, place[name]) for name in scheme.layer)
        layer = window.rois.get(parts)
        if layer is None:
            layer = window.rois[parts] = _Rois(self._name(), parts)
        where = tuple(sorted(zip(scheme.axes, scheme.where(place), strict=True)))
        home = (window, layer, where)
        if entry.home is not None and entry.home != home:
            self._leave(entry)
        added = [window.add_value(axis, value) for axis, value in where]
        if any(added):
            self._arrange(window)
        layer.sets[where] = entry
        layer.dirty = True
        entry.home = home

    def _leave(self, entry: _RoiEntry) -> None:
        assert entry.home is not None
        window, layer, where = entry.home
        if layer.sets.get(where) is not entry:
            return  # those of another lie there, or the layer has gone with them
        del layer.sets[where]
        layer.dirty = True
        if not layer.sets:
            self._drop_rois(window, layer)

    def _drop_rois(self, window: _Window, layer: _Rois) -> None:
        window.rois.pop(layer.parts, None)
        self._removed.append(layer.id)
        self._drop_empty(window)

    def _drop_empty(self, window: _Window) -> None:
        if not window.images and not window.rois:
            self._windows.pop((window.plan.key, window.parts), None)

    # -- taking away

    def clear(self, source: str | None = None) -> None:
        """Take away what a source has sent, or everything."""
        for window in list(self._windows.values()):
            for key, layer in list(window.images.items()):
                self._clear_images(window, key, layer, source)
        for name, entry in list(self._entries.items()):
            if source is None or source in (entry.source, self._source_of(entry)):
                del self._entries[name]
                self._leave(entry)
        for window in list(self._windows.values()):
            self._drop_empty(window)

    def _source_of(self, entry: _RoiEntry) -> str:
        known = self._folders.get((entry.plan.key, entry.folder)) if entry.folder else None
        return min(known) if known else entry.folder.rstrip("/").rpartition("/")[2] or entry.source

    def _clear_images(self, window: _Window, key: tuple[_Parts, _Form], layer: _Images, source: str | None) -> None:
        gone = layer.planes.places(source)
        if len(gone) == len(layer.planes):
            del window.images[key]
            self._found.clear()
            self._removed.append(layer.id)
            for other in window.images.values():
                other.dirty = True
            return
        if gone:
            layer.planes.remove(gone)
            layer.dirty = True

    # -- for the viewer

    def take_changes(self) -> Changes:
        """Return what has changed since the last time."""
        changes = Changes(removed=self._removed)
        self._removed = []
        for window in self._windows.values():
            for images in window.images.values():
                if images.dirty:
                    changes.images.append(self._shown_images(window, images))
                    images.dirty = images.moved = False
                    images.planes.forget_changes()
            for rois in window.rois.values():
                if rois.dirty:
                    changes.rois.append(self._shown_rois(window, rois))
                    rois.dirty = False
        return changes

    def layers(self) -> list[ImageLayer | RoiLayer]:
        """Return all layers as they are."""
        found: list[ImageLayer | RoiLayer] = []
        for window in self._windows.values():
            found += [self._shown_images(window, each) for each in window.images.values()]
            found += [self._shown_rois(window, each) for each in window.rois.values()]
        return found

    def _shown_images(self, window: _Window, layer: _Images) -> ImageLayer:
        planes, display = layer.planes, window.plan.display
        dims = 2 + (planes.colours > 0)
        array = planes.array
        assert array.ndim == len(planes.axes) + dims
        limits = planes.limits()
        channels = {value for name, value in layer.parts if name == "channel"} or {*limits, *_keys(display.lut)} - {None}
        contrast: dict[Value | None, tuple[float, float]] = {}
        luts: dict[Value | None, str] = {}
        single = len(channels) < 2
        for channel in channels or {None}:
            chosen = display.contrast_of(channel)
            found = chosen if isinstance(chosen, tuple) else _widest(limits.values()) if single else limits.get(channel)
            if found is not None:
                contrast[None if single else channel] = found
            lut = display.lut_of(channel)
            if lut is not None:
                luts[None if single else channel] = lut
        return ImageLayer(
            **self._common(window, layer.id, layer.parts, layer.planes.axes, self._suffix(window, layer)),
            array=array,
            rgb=planes.colours > 0,
            missing=planes.missing,
            contrast=contrast,
            luts=luts,
            gamma=display.gamma,
            changed=planes.changed(),
            moved=layer.moved,
        )

    def _shown_rois(self, window: _Window, layer: _Rois) -> RoiLayer:
        axes = window.axes()
        rois: dict[tuple[int | None, ...], PackedRois] = {}
        for where, entry in layer.sets.items():
            said = dict(where)
            index = tuple(window.values[axis].index[said[axis]] if axis in said else None for axis in axes)
            if len(entry.packed):
                rois[index] = entry.packed
        return RoiLayer(**self._common(window, layer.id, layer.parts, axes, " ROIs"), rois=rois)

    def _common(self, window: _Window, id_: str, parts: _Parts, axes: tuple[str, ...], suffix: str) -> dict[str, Any]:
        display = window.plan.display
        title = _label(window.parts) or "Mutoscope"
        steps = {"z": (display.z_um, "µm"), "t": (display.t_s, "s"), "y": (display.pixel_size_um, "µm")}
        steps["x"] = steps["y"]
        names = (*axes, "y", "x")
        stepped = [*(_stepped(window.values[axis].values, window.plan.components(axis)) for axis in axes), "y", "x"]
        known = [steps[name] if name in steps and steps[name][0] else (1.0, "") for name in stepped]
        ranks = sorted(
            [(0, _parts_key(each.parts), each.form, each.id) for each in window.images.values()]
            + [(1, _parts_key(each.parts), "", each.id) for each in window.rois.values()]
        )
        return {
            "id": id_,
            "name": (_label(parts) or _label(window.parts) or "images") + suffix,
            "window_id": window.id,
            "window": title,
            "order": next(number for number, rank in enumerate(ranks) if rank[3] == id_),
            "components": dict((*window.parts, *parts)),
            "axes": axes,
            "axis_components": tuple(window.plan.components(axis) for axis in axes),
            "axis_names": tuple(display.axis_names.get(axis, axis) for axis in names),
            "values": tuple(tuple(window.values[axis].values) for axis in axes),
            "scale": tuple(float(step or 1.0) for step, _ in known),
            "units": tuple(unit for _, unit in known),
            "window_axes": window.axes(),
            "window_shape": tuple(len(window.values[axis].values) for axis in window.axes()),
        }

    def _suffix(self, window: _Window, layer: _Images) -> str:
        """What tells layers of the same components apart: the form of their pixels."""
        same = [each for each in window.images.values() if each.parts == layer.parts]
        return f" {layer.form}" if len(same) > 1 else ""

    # -- what is made when it is needed

    def _plan(self, display: Display) -> _Plan:
        if self._last is not None and self._last[0] is display:
            return self._last[1]
        key = msgspec.json.encode(display.to_dict())
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _Plan(key, display, self._defaults)
        self._last = display, plan
        return plan

    def _window(self, plan: _Plan, parts: _Parts) -> _Window:
        window = self._windows.get((plan.key, parts))
        if window is None:
            window = self._windows[plan.key, parts] = _Window(self._name(), plan, parts)
        return window

    def _name(self) -> str:
        self._made += 1
        return str(self._made)


def _stepped(values: Sequence[AxisValue], components: Sequence[str]) -> str:
    """The component along which an axis has steps: the one that varies, if no other does; empty if several do."""
    varying = [name for number, name in enumerate(components) if len({value[number] for value in values}) > 1]
    if len(varying) > 1:
        return ""
    return varying[0] if varying else components[-1] if len(components) == 1 else ""


def _widest(limits: Collection[tuple[float, float]]) -> tuple[float, float] | None:
    return (min(low for low, _ in limits), max(high for _, high in limits)) if limits else None


def _keys(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Mapping) else ()


def _label(parts: _Parts) -> str:
    return " ".join(str(value) if name == "source" else f"{name} {value}" for name, value in parts)


def _parts_key(parts: _Parts) -> tuple[Any, ...]:
    return tuple((name, value_key(value)) for name, value in parts)


def _form_name(form: _Form) -> str:
    dtype, colours, size = form
    words = [dtype.name, *(["rgb" if colours == 3 else "rgba"] if colours else [])]
    return " ".join([*words, *([f"{size[0]}x{size[1]}"] if size is not None else [])])
