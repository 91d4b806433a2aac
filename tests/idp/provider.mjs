// A real OpenID provider (npm oidc-provider) for one client, on a loopback port. Run by tests/idp.py:
//   node provider.mjs SETTINGS.json        prints "ready" once it listens
// Accounts lie in a JSON file that is read anew for each request, so that a test can change somebody's groups, or
// disable them, between two requests. The client may come back to any port of this machine.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const accounts = () => JSON.parse(readFileSync(settings.accounts, 'utf8'));

const findAccount = (_ctx, sub) => {
  const found = Object.values(accounts()).find((one) => one.sub === sub);
  if (found === undefined || found.disabled) return undefined;
  return { accountId: sub, claims: () => ({ ...found.claims, sub }) };
};

const provider = new Provider(settings.issuer, {
  clients: [{
    client_id: settings.client,
    client_secret: settings.secret,
    redirect_uris: ['http://127.0.0.1/'],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  }],
  claims: {
    openid: ['sub'],
    profile: ['preferred_username', 'name'],
    email: ['email', 'email_verified'],
    groups: ['groups'],
  },
  scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
  conformIdTokenClaims: settings.claims_by_user_information,
  pkce: { required: () => true },
  rotateRefreshToken: () => true,
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: [settings.cookie_key] },
  jwks: { keys: [settings.key] },
  ttl: settings.ttl,
  findAccount,
  renderError: (ctx, out) => { ctx.type = 'text'; ctx.body = `${out.error}: ${out.error_description}`; },
});

const loopback = new Set(['127.0.0.1', 'localhost', '[::1]']);
provider.Client.prototype.redirectUriAllowed = (uri) => loopback.has(new URL(uri).hostname);

const escaped = (text) => String(text).replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
const page = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title>
<main><h1>${title}</h1>${body}</main></html>`;
const loginPage = (uid, wrong) => page('Sign in to Example Corp', `${wrong ? '<p role="alert">Wrong name or password</p>' : ''}
<form method="post" action="/interaction/${escaped(uid)}/login">
<label>Name <input name="login" autocomplete="username" autofocus required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button type="submit">Sign in</button></form>
<form method="post" action="/interaction/${escaped(uid)}/cancel"><button type="submit">Cancel</button></form>`);
const consentPage = (uid, client) => page('Example Corp asks', `<p>${escaped(client)} wants to know who you are.</p>
<form method="post" action="/interaction/${escaped(uid)}/consent"><button type="submit">Continue</button></form>
<form method="post" action="/interaction/${escaped(uid)}/cancel"><button type="submit">Cancel</button></form>`);

async function form(req) {
  let text = '';
  for await (const part of req) text += part;
  return new URLSearchParams(text);
}

function send(res, status, html) {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
  res.end(html);
}

async function consented({ grantId, params, prompt, session }) {
  const grant = grantId ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  return { consent: { grantId: await grant.save() } };
}

async function interaction(req, res, act) {
  const details = await provider.interactionDetails(req, res);
  const finish = (result) => provider.interactionFinished(req, res, result, { mergeWithLastSubmission: true });
  if (req.method === 'GET') {
    const login = details.prompt.name === 'login';
    return send(res, 200, login ? loginPage(details.uid) : consentPage(details.uid, details.params.client_id));
  }
  if (act === 'cancel') return finish({ error: 'access_denied', error_description: 'the person said no' });
  if (act === 'consent') return finish(await consented(details));
  const given = await form(req);
  const account = accounts()[given.get('login')];
  if (!account || account.disabled || account.password !== given.get('password')) {
    return send(res, 401, loginPage(details.uid, true));
  }
  return finish({ login: { accountId: account.sub } });
}

const rest = provider.callback();
const server = createServer((req, res) => {
  const [, first, , act] = new URL(req.url, settings.issuer).pathname.split('/');
  if (first !== 'interaction') return rest(req, res);
  return interaction(req, res, act).catch((error) => send(res, 400, page('This did not work', `<p>${escaped(error.message)}</p>`)));
});
server.listen(Number(new URL(settings.issuer).port), '127.0.0.1', () => console.log('ready'));
server.on('error', (error) => { console.error(error.message); process.exit(1); });
