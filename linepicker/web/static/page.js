// Keeps the page up to date, and sends its forms without leaving it. What comes is HTML that the server has escaped.
"use strict";

const at = (id) => document.getElementById(id);
const body = document.body;
const rows = at("rows");
let stream = null;
let again = 0;

// The lines

const numberOf = (row) => row.cells[0].textContent;
let known = new Map();

function learn() {
  known = new Map(Array.from(rows.rows, (row) => [numberOf(row), row]));
}

function replace(place, html) {
  // Who stands on a button of it goes on standing there.
  const on = place.contains(document.activeElement) && document.activeElement !== place;
  place.innerHTML = html;
  if (on) place.querySelector("button")?.focus();
}

function replaceAll(html) {
  const row = document.activeElement?.closest("#rows tr");
  const number = row && numberOf(row);
  rows.innerHTML = html;
  learn();
  if (number) known.get(number)?.querySelector("button")?.focus();
}

function filter() {
  const wanted = at("which").value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
  let shown = 0;
  for (const row of rows.rows) {
    const text = wanted.length ? row.textContent.toLowerCase() : "";
    row.hidden = wanted.length > 0 && !wanted.some((word) => text.includes(word));
    if (!row.hidden) shown += 1;
  }
  at("shown").textContent = wanted.length ? `${shown} of ${rows.rows.length}` : "";
}

// The stream

function take(event) {
  const news = JSON.parse(event.data);
  body.dataset.since = event.lastEventId;
  at("at").textContent = news.at;
  for (const [name, html] of Object.entries(news.parts)) at(name).innerHTML = html;
  if (news.lines !== null) replaceAll(news.lines);
  for (const [number, html] of Object.entries(news.rows)) {
    const row = known.get(number);
    if (row) replace(row, html);
  }
  if (at("which").value) filter();
}

function open() {
  clearTimeout(again);
  stream?.close();
  stream = new EventSource(`events?since=${encodeURIComponent(body.dataset.since)}`);
  stream.onmessage = take;
  stream.onopen = () => { at("link").textContent = ", live"; };
  stream.onerror = () => {
    at("link").textContent = ", not live: trying again";
    if (stream.readyState === EventSource.CLOSED) again = setTimeout(open, 5000);
  };
}

function close() {
  clearTimeout(again);
  stream?.close();
  stream = null;
  at("link").textContent = ", not live";
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
addEventListener("pageshow", (event) => { if (event.persisted) open(); });
addEventListener("pagehide", close);

// The forms

async function send(form, answer) {
  const button = form.querySelector("button");
  button.disabled = true;
  answer.textContent = "One moment.";
  try {
    const sent = await fetch(form.action, {
      method: "POST",
      headers: { accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const json = sent.headers.get("content-type")?.startsWith("application/json");
    if (json) answer.innerHTML = (await sent.json()).html;
    else answer.textContent = `That was refused (${sent.status}). Load the page again.`;
    return sent.ok;
  } catch {
    answer.textContent = "No answer: is the server still there?";
    return false;
  } finally {
    button.disabled = false;
  }
}

at("find").addEventListener("submit", (event) => {
  event.preventDefault();
  send(event.target, at("found"));
});

at("operate")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await send(event.target, at("operated"))) at("reason").value = "";
});

rows.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  at("number").value = button.textContent;
  at("operating").open = true;
  at("operating").scrollIntoView({ block: "center" });
  at("operate").querySelector("input[type=radio]").focus();
});

at("which").addEventListener("input", filter);
at("filter").hidden = false;
learn();
if (!document.hidden) open();
