"""The terminal view of `emostream watch` and `emostream demo`."""

from stream.view.picture import snapshot as snapshot
from stream.view.state import ViewState as ViewState
from stream.view.viewer import watch as watch
