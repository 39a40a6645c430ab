// Before the first paint: the colours this browser was told to use.
try {
  const theme = localStorage.getItem("proxymw-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* no storage: the system's colours */ }
