// OAuth clients on oauth4webapi, which takes nothing from a server that its standards do not allow. A test controls them
// as remote_control.mjs says; what they are told to do is below. Errors carry what the library has read of an answer:
// {error, description, status, challenges}.
import * as oauth from "oauth4webapi";
import { answer } from "./remote_control.mjs";

const clients = new Map();
const insecure = { [oauth.allowInsecureRequests]: true }; // over loopback

const actions = {
  // From the address of a resource to who issues its tokens (RFC 9728, RFC 8414).
  async discover(self, { resource }) {
    const url = new URL(resource);
    const found = await oauth.resourceDiscoveryRequest(url, insecure);
    self.resource = await oauth.processResourceDiscoveryResponse(url, found);
    const issuer = new URL(self.resource.authorization_servers[0]);
    const metadata = await oauth.discoveryRequest(issuer, { ...insecure, algorithm: "oauth2" });
    self.server = await oauth.processDiscoveryResponse(issuer, metadata);
    return { resource: self.resource, server: self.server };
  },
  async register(self, metadata) {
    const answered = await oauth.dynamicClientRegistrationRequest(self.server, metadata, insecure);
    const registered = await oauth.processDynamicClientRegistrationResponse(answered);
    self.client = { client_id: registered.client_id, token_endpoint_auth_method: "none" };
    self.redirectUri = metadata.redirect_uris[0];
    return registered;
  },
  use(self, { client_id }) {
    self.client = { ...self.client, client_id };
  },
  // Where to send the person.
  async ask(self, parameters) {
    self.verifier = oauth.generateRandomCodeVerifier();
    self.state = oauth.generateRandomState();
    const address = new URL(self.server.authorization_endpoint);
    address.search = new URLSearchParams({
      response_type: "code",
      client_id: self.client.client_id,
      redirect_uri: self.redirectUri,
      state: self.state,
      code_challenge: await oauth.calculatePKCECodeChallenge(self.verifier),
      code_challenge_method: "S256",
      resource: self.resource.resource,
      ...parameters,
    });
    return address.href;
  },
  // From where the person came back to: the code is taken when state and issuer (RFC 9207) are right.
  back(self, { address }) {
    self.answered = oauth.validateAuthResponse(self.server, self.client, new URL(address), self.state);
  },
  async redeem(self, { verifier = self.verifier }) {
    const { server, client, answered, redirectUri } = self;
    const additionalParameters = { resource: self.resource.resource };
    const response = await oauth.authorizationCodeGrantRequest(
      server, client, oauth.None(), answered, redirectUri, verifier, { ...insecure, additionalParameters },
    );
    return oauth.processAuthorizationCodeResponse(server, client, response);
  },
  async refresh({ server, client, resource }, { token, secret, ...said }) {
    const additionalParameters = { resource: resource.resource, ...said };
    const authentication = secret === undefined ? oauth.None() : oauth.ClientSecretBasic(secret);
    const response = await oauth.refreshTokenGrantRequest(
      server, client, authentication, token, { ...insecure, additionalParameters },
    );
    return oauth.processRefreshTokenResponse(server, client, response);
  },
  // What an access token says to the resource, by the profile of RFC 9068.
  judge({ server, resource }, { token }) {
    const request = new Request(resource.resource, { headers: { authorization: `Bearer ${token}` } });
    return oauth.validateJwtAccessToken(server, request, resource.resource, insecure);
  },
  async introspect({ server, client }, { token }) {
    const response = await oauth.introspectionRequest(server, client, oauth.None(), token, insecure);
    return oauth.processIntrospectionResponse(server, client, response);
  },
  async revoke({ server, client }, { token }) {
    await oauth.processRevocationResponse(
      await oauth.revocationRequest(server, client, oauth.None(), token, insecure),
    );
  },
  // Send JSON to the resource; without a token as somebody who does not know yet that one is needed.
  async call({ resource }, { token = null, message }) {
    const anonymously = (address, { headers: { authorization, ...headers }, ...options }) =>
      fetch(address, { ...options, headers });
    const response = await oauth.protectedResourceRequest(
      token ?? "none",
      "POST",
      new URL(resource.resource),
      new Headers({ "content-type": "application/json", accept: "application/json, text/event-stream" }),
      JSON.stringify(message),
      token === null ? { ...insecure, [oauth.customFetch]: anonymously } : insecure,
    );
    return { status: response.status, body: await response.text() };
  },
};

answer(async ({ client: name, do: action, with: parameters }) => {
  if (!clients.has(name)) clients.set(name, {});
  try {
    return await actions[action](clients.get(name), parameters);
  } catch (error) {
    const challenges = error instanceof oauth.WWWAuthenticateChallengeError ? error.cause : null;
    error.data = { error: error.error, description: error.error_description, status: error.status, challenges };
    throw error;
  }
});
