// The console works without this. It puts live rows in, says that something new waits, and copies secrets that are shown once.
// Rows are made and escaped by the server; the page's policy lets nothing inline run.
"use strict";

(() => {
  const MOST = 200;
  const list = document.querySelector("[data-live]");
  if (list) follow(list);

  function follow(list) {
    const state = document.querySelector("[data-live-state]");
    const pause = document.querySelector("[data-live-pause]");
    const more = document.querySelector("[data-live-more]");
    const empty = document.querySelector("[data-live-empty]");
    let paused = false;
    let held = [];
    let missed = 0;
    const say = (words, name) => {
      state.textContent = words;
      state.dataset.liveState = name;
    };
    const put = (rows) => {
      if (empty) empty.remove();
      list.insertAdjacentHTML("afterbegin", rows);
      for (const row of list.querySelectorAll("li:not([data-seen])")) {
        row.dataset.seen = "";
        row.classList.add("fresh");
      }
      while (list.children.length > MOST) list.lastElementChild.remove();
    };
    for (const row of list.children) {
      row.dataset.seen = "";
    }
    const source = new EventSource(list.dataset.live);
    source.onopen = () => say(paused ? "paused" : "live", paused ? "paused" : "live");
    source.onerror = () => say("connecting again …", "away");
    source.addEventListener("rows", (event) => {
      const at = event.data.lastIndexOf("\n");
      const rows = event.data.slice(0, at);
      missed += Number(event.data.slice(at + 1)) || 0;
      if (missed > 0 && more) {
        more.hidden = false;
        more.textContent = `${missed} more came too fast to be shown: search for them.`;
      }
      if (paused) {
        held.push(rows);
        if (held.length > MOST) held.shift();
        say(`paused, ${held.length} new`, "paused");
      } else {
        put(rows);
      }
    });
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      pause.textContent = paused ? "Go on" : "Pause";
      if (!paused) {
        held.forEach(put);
        held = [];
      }
      say(paused ? "paused" : "live", paused ? "paused" : "live");
    });
    addEventListener("pagehide", () => source.close());
  }

  // The inbox looks again by itself, while nobody is typing in it.
  const watched = document.querySelector("[data-watch]");
  if (watched) {
    setInterval(async () => {
      if (document.hidden || document.activeElement?.matches("input, textarea, select")) return;
      const answer = await fetch(watched.dataset.watch, { headers: { accept: "text/html" } }).catch(() => null);
      if (!answer || !answer.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-watch]");
      const ids = (list) => [...list.querySelectorAll("h2 a")].map((link) => link.getAttribute("href")).join(" ");
      if (fresh && ids(fresh) !== ids(watched)) location.reload();
    }, 3000);
  }

  // A dry run that is under way: its page is looked at again until it is done.
  if (document.querySelector("[data-run=running]")) {
    setTimeout(() => location.reload(), 3000);
  }

  const once = document.querySelector("[data-once]");
  if (once && navigator.clipboard) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(once.textContent);
      button.textContent = "Copied";
    });
    once.closest(".note").append(button);
  }
})();
