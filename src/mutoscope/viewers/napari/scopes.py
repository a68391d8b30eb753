"""The part of the widget that shows running scopes: those of this user are listed, others are reached by their link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from mutoscope.model.errors import MutoscopeError
from mutoscope.viewers.account import Watched
from mutoscope.viewers.announce import announced
from mutoscope.viewers.napari.host import Host
from mutoscope.viewers.watching.scopes import address_of

__all__ = ["ScopesPanel"]


class ScopesPanel(QWidget):  # type: ignore[misc] # Qt is not typed here
    """Connects to a scope, and says what is shown of it.

    Parameters
    ----------
    host : callable
        Returns what receives into this napari; None if nothing does.
    """

    def __init__(self, host: Callable[[], Host | None]) -> None:
        super().__init__()
        self._host = host
        self._problem = ""
        self.choice = QComboBox()
        self.choice.setEditable(True)
        self.choice.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.choice.lineEdit().setPlaceholderText("a scope that runs, or the link of its page")
        self.choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.connect_button = QPushButton("Connect")
        self.connect_button.clicked.connect(self._connect)
        self.leave_button = QPushButton("Disconnect")
        self.leave_button.clicked.connect(self._leave)
        self.said = QLabel()
        self.said.setWordWrap(True)
        buttons = QHBoxLayout()
        buttons.addWidget(self.connect_button)
        buttons.addWidget(self.leave_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("scope"))
        layout.addWidget(self.choice)
        layout.addLayout(buttons)
        layout.addWidget(self.said)

    def _connect(self, *_: Any) -> None:
        host = self._host()
        try:
            if host is not None:
                host.watch(address_of(self.choice.currentText().strip() or None))
            self._problem = "" if host is not None else "It does not receive: begin to receive first."
        except (MutoscopeError, OSError) as error:
            self._problem = str(error)
        self.look()

    def _leave(self, *_: Any) -> None:
        host = self._host()
        if host is not None:
            host.unwatch()
        self._problem = ""
        self.look()

    def look(self) -> None:
        """Look at the scopes that run, and at those that are shown."""
        host = self._host()
        watched = [] if host is None else host.watched()
        names = [page.name for page in announced("page")]
        if names != [self.choice.itemText(number) for number in range(self.choice.count())]:
            typed = self.choice.currentText()
            self.choice.clear()
            self.choice.addItems(names)
            self.choice.setCurrentText(typed or (names[0] if names else ""))
        self.leave_button.setEnabled(bool(watched))
        self.said.setText("\n".join([*([self._problem] if self._problem else []), *map(_words, watched)]))


def _words(watched: Watched) -> str:
    lines = [f"{watched.scope}: {watched.state}"]
    if watched.problem:
        lines.append(f"  {watched.problem}")
    elif watched.role == "view":
        lines.append("  by a link that only looks")
    for stream in watched.streams if watched.state == "live" else []:
        age = "" if stream.age_ms is None else f", {stream.age_ms:.0f} ms old"
        lines.append(f"  {stream.name}: frame {stream.frame_id:,}{age}")
    return "\n".join(lines)
