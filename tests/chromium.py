"""The browser of the tests, and how it is started: without what it does beside showing a page."""

from __future__ import annotations

import os

#: Debian's ``chromium-headless-shell`` is the same engine without a browser's own windows, and takes half of its time to start.
SHELL, BROWSER = "/usr/bin/chromium-headless-shell", "/usr/bin/chromium"
CHROMIUM = SHELL if os.access(SHELL, os.X_OK) else BROWSER
#: The last list of features is the one that counts, so it holds those that Playwright switches off as well.
_OFF = (
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch",
    # A process that stands by for the next address costs as much as one that is used,
    "SpareRendererForSitePerProcess",
    # and so do those that draw a window's own controls, which nobody sees here.
    "PreloadTopChromeWebUI", "TopChromeWebUIUsesSpareRenderer", "InitialWebUI", "WebUIReloadButton", "WebUIBackButton",
    "WebUIForwardButton", "WebUIHomeButton", "WebUILocationBar", "WebUIToolbar", "WebUITabStrip", "WebUIOmniboxPopup",
)  # fmt: skip
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", f"--disable-features={','.join(_OFF)}",
    # How letters are fitted to pixels and smoothed, and what a screen makes of colours, are each machine's own.
    "--font-render-hinting=none", "--disable-lcd-text", "--force-color-profile=srgb",
]  # fmt: skip
