document.documentElement.classList.toggle("awake");
