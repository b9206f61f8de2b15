-- What is stopped. The id is a digest of what it is: the same is stopped once.
CREATE TABLE quarantines (
    id TEXT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    body TEXT NOT NULL
);
