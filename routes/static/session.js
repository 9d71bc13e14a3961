// Who sits here: where the server asks who calls, whoever is signed in, and where it does not, a name that a person
// goes by.
//
// The session is in a cookie, which no script reads and which the browser sends by itself. What the tabs tell each other
// is only that somebody has signed in.

const ACTOR = "taskhub.actor";

export const asksWho = document.body.dataset.auth !== "none";

const tabs = new BroadcastChannel("taskhub.session");

/** Tell the other tabs who is signed in now. @param {string} user */
export function tellTabs(user) {
  tabs.postMessage({ user });
}

/** Hear who has signed in in another tab. @param {(user: string) => void} heard */
export function onSignIn(heard) {
  tabs.onmessage = ({ data }) => heard(data.user);
}

/** Where to sign in, and to come back from to what is shown now. */
export const signInAddress = () => `/login?next=${encodeURIComponent(location.pathname + location.search)}`;

/** The name a person chose to go by, such as `alice`; null: nobody in particular. */
export const actor = () => (asksWho ? null : localStorage.getItem(ACTOR));

/** @param {string | null} name */
export function goBy(name) {
  if (name) localStorage.setItem(ACTOR, name);
  else localStorage.removeItem(ACTOR);
}

/** What every request carries. */
export function headers() {
  /** @type {Record<string, string>} */
  const found = {};
  const name = actor();
  if (name) found["X-TaskHub-Actor"] = `user:${name}`;
  return found;
}
