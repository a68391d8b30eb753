"""The widget in napari's menu, Plugins ▸ Mutoscope: receives, says what came, and shows running scopes."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from mutoscope.model.errors import MutoscopeError
from mutoscope.viewers.account import Progress
from mutoscope.viewers.core import log_file
from mutoscope.viewers.napari.host import Host, free_name
from mutoscope.viewers.napari.scopes import ScopesPanel

__all__ = ["ReceiverWidget"]

_LOOK_MS = 500


class ReceiverWidget(QWidget):  # type: ignore[misc] # Qt is not typed here
    """Opens the receiver in the napari that it is docked in, at once; programs find it by the name that it shows.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        As napari gives it.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._latest: Progress | None = None
        self._name = QLineEdit(free_name())
        self._button = QPushButton()
        self._button.clicked.connect(self._toggle)
        self._account = QLabel()
        self._account.setWordWrap(True)
        self._account.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row = QHBoxLayout()
        row.addWidget(QLabel("name"))
        row.addWidget(self._name)
        row.addWidget(self._button)
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addWidget(self._account)
        self.scopes = ScopesPanel(lambda: self._host)
        layout.addWidget(self.scopes)
        layout.addStretch()
        self._clock = QTimer(self)
        self._clock.timeout.connect(self._look)
        self._clock.start(_LOOK_MS)
        if not self._receiving:
            self._toggle()
        self._look()

    @property
    def _host(self) -> Host | None:
        return Host.of(self._viewer)

    @property
    def _receiving(self) -> bool:
        return self._host is not None and self._host.receiving

    @property
    def text(self) -> str:
        """What it says."""
        return str(self._account.text())

    def _toggle(self) -> None:
        host = self._host
        if host is not None and host.receiving:
            host.end()
        else:
            self._name.setText(free_name(self._name.text().strip() or "napari"))
            try:
                self.destroyed.connect(Host.begin(self._viewer, self._name.text()).end)  # napari's window takes it along
            except (MutoscopeError, OSError) as error:
                self._account.setText(str(error))
                return
        self._latest = None
        self._look()

    def _look(self) -> None:
        self.scopes.look()
        host = self._host
        if host is None:
            return
        self._name.setEnabled(not host.receiving)
        self._button.setVisible(host.may_end)
        self._button.setText("Stop" if host.receiving else "Receive")
        if host.receiving:
            self._name.setText(host.name)
            host.ask_progress(self._keep)
        self._account.setText(_words(host, self._latest))

    def _keep(self, progress: Progress) -> None:
        self._latest = progress


def _words(host: Host, progress: Progress | None) -> str:
    if host.problem:
        return f"It failed: {host.problem}\nIts log: {log_file(host.name)}"
    if not host.receiving:
        return "It does not receive."
    lines = [f'viewers.open("napari", "{host.name}")' if host.name != "napari" else 'viewers.open("napari")']
    if progress is not None:
        lines.append(progress.summary())
        lines += [f"{each.program} (process {each.pid}): {each.images.displayed} images" for each in progress.senders[-5:]]
    return "\n".join(lines)
