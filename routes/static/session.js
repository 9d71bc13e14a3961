// Who sits here: the API key, where the server asks for one, and the name a person goes by where it does not.
//
// The key stays in the memory of this tab's session and goes to the server as a header, never into an address. A new
// tab asks those that are open for it. With no inline script, nothing parsed as HTML and no foreign origin allowed, no
// script but TaskHub's own can read it here; a sign-in with a cookie would keep it from that as well.

const KEY = "taskhub.key";
const ACTOR = "taskhub.actor";
const ASKING_MS = 200;

export const needsKey = document.body.dataset.auth === "api_key";

const others = new BroadcastChannel("taskhub.session");
others.onmessage = ({ data }) => {
  const key = sessionStorage.getItem(KEY);
  if (data === "key?" && key) others.postMessage({ key });
};

/** @returns {Promise<void>} */
async function askOthers() {
  if (!needsKey || sessionStorage.getItem(KEY)) return;
  await new Promise((resolve) => {
    const asking = new BroadcastChannel("taskhub.session");
    const done = () => {
      asking.close();
      resolve(undefined);
    };
    asking.onmessage = ({ data }) => {
      if (!data.key) return;
      sessionStorage.setItem(KEY, data.key);
      done();
    };
    asking.postMessage("key?");
    setTimeout(done, ASKING_MS);
  });
}

await askOthers();

/** Whether there is nobody whom the server would let in. */
export const signedOut = () => needsKey && !sessionStorage.getItem(KEY);

/** @param {string} key */
export function signIn(key) {
  sessionStorage.setItem(KEY, key);
}

export function signOut() {
  sessionStorage.removeItem(KEY);
}

/** The name a person chose to go by, such as `alice`; null: nobody in particular. */
export const actor = () => (needsKey ? null : localStorage.getItem(ACTOR));

/** @param {string | null} name */
export function goBy(name) {
  if (name) localStorage.setItem(ACTOR, name);
  else localStorage.removeItem(ACTOR);
}

/** What every request carries. */
export function headers() {
  /** @type {Record<string, string>} */
  const found = {};
  const key = sessionStorage.getItem(KEY);
  const name = actor();
  if (needsKey && key) found["X-API-Key"] = key;
  if (name) found["X-TaskHub-Actor"] = `user:${name}`;
  return found;
}
