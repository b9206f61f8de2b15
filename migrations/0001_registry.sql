-- One text for SQLite and PostgreSQL. Records are JSON: what is looked for has a column, nothing else.

-- One row. Every change counts it up, which orders changes and makes writers wait for each other.
CREATE TABLE clock (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL
);
INSERT INTO clock (id, seq) VALUES (1, 0);

CREATE TABLE servers (
    name TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX servers_by_seq ON servers (seq);

-- The id is a digest of server, kind and name: names are a stranger's and may be long.
CREATE TABLE items (
    id TEXT NOT NULL PRIMARY KEY,
    server TEXT NOT NULL,
    version BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX items_by_seq ON items (seq);

-- Every definition, once, by its digest.
CREATE TABLE definitions (
    digest TEXT NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL,
    body TEXT NOT NULL
);

-- Which definitions an item has had.
CREATE TABLE versions (
    item TEXT NOT NULL,
    digest TEXT NOT NULL,
    server TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    PRIMARY KEY (item, digest)
);
CREATE INDEX versions_by_server ON versions (server);
CREATE INDEX versions_by_digest ON versions (digest);

-- Who did what, when and why. Never changed.
CREATE TABLE acts (
    seq BIGINT NOT NULL,
    nth BIGINT NOT NULL,
    server TEXT NOT NULL,
    item TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (seq, nth)
);
CREATE INDEX acts_by_subject ON acts (server, item, seq);

-- Sign-ins of people. The id is a digest of what the browser holds.
CREATE TABLE sign_ins (
    id TEXT NOT NULL PRIMARY KEY,
    purpose TEXT NOT NULL,
    body TEXT NOT NULL,
    created BIGINT NOT NULL,
    touched BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX sign_ins_by_expiry ON sign_ins (expires);
