/** What the page knows of its service from the start; service/page.py writes it. */

export const facts = JSON.parse(document.querySelector("meta[name=atelier]").content);
