-- Everything the message path needs in one database. Ids are bytes, compared as bytes.
-- No foreign keys, no auto-increment: keys come from the logs and from the owners of rows.
-- Every table of a conversation or a user is led by the bucket of its key (internal/route), so
-- that the rows of a bucket lie together: a move copies them, and purges them, in ranges.
-- Rule for later migrations: expand, let both binaries run, contract.

-- +goose Up

-- The head row of a conversation's log. head_from is the seq its last writer believed: an
-- append finds there what to compare (see statements.go). own: each sender's countable messages.
CREATE TABLE conversation (
  bucket    SMALLINT UNSIGNED NOT NULL,
  tenant    VARBINARY(255)  NOT NULL,
  conv      VARBINARY(255)  NOT NULL,
  head_from BIGINT UNSIGNED NOT NULL,
  head_seq  BIGINT UNSIGNED NOT NULL,
  head_ord  BIGINT UNSIGNED NOT NULL,
  flags     INT UNSIGNED    NOT NULL,
  own       MEDIUMBLOB      NOT NULL,
  PRIMARY KEY (bucket, tenant, conv)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- client_msg_id NULL: the entry has no dedupe key.
CREATE TABLE message (
  bucket        SMALLINT UNSIGNED NOT NULL,
  tenant        VARBINARY(255)  NOT NULL,
  conv          VARBINARY(255)  NOT NULL,
  seq           BIGINT UNSIGNED NOT NULL,
  sender        VARBINARY(255)  NOT NULL,
  client_msg_id VARBINARY(255)  NULL,
  body_hash     BIGINT UNSIGNED NOT NULL,
  kind          INT             NOT NULL,
  text          MEDIUMBLOB      NOT NULL,
  data          MEDIUMBLOB      NULL,
  created_ms    BIGINT          NOT NULL,
  ord           BIGINT UNSIGNED NOT NULL,
  own_ord       BIGINT UNSIGNED NOT NULL,
  mod_seq       BIGINT UNSIGNED NOT NULL,
  recalled      TINYINT         NOT NULL,
  target_seq    BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (bucket, tenant, conv, seq),
  UNIQUE KEY client_msg_id (bucket, tenant, conv, sender, client_msg_id)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Where the entries are that were rewritten, by mod_seq: a table of its own, so that the many
-- entries that never are pay for no index. A place an entry has left stays and counts no more.
CREATE TABLE modified (
  bucket  SMALLINT UNSIGNED NOT NULL,
  tenant  VARBINARY(255)  NOT NULL,
  conv    VARBINARY(255)  NOT NULL,
  mod_seq BIGINT UNSIGNED NOT NULL,
  seq     BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (bucket, tenant, conv, mod_seq, seq)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The head row of a user's log, with the fence of his sessions. The _from columns are as in
-- conversation; writes makes every update a change, so that the count of affected rows tells
-- updates from inserts.
CREATE TABLE user_head (
  bucket        SMALLINT UNSIGNED NOT NULL,
  tenant        VARBINARY(255)  NOT NULL,
  uid           VARBINARY(255)  NOT NULL,
  version_from  BIGINT UNSIGNED NOT NULL DEFAULT 0,
  version       BIGINT UNSIGNED NOT NULL DEFAULT 0,
  woken         BIGINT UNSIGNED NOT NULL DEFAULT 0,
  session_from  BIGINT UNSIGNED NOT NULL DEFAULT 0,
  session_epoch BIGINT UNSIGNED NOT NULL DEFAULT 0,
  writes        BIGINT UNSIGNED NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, tenant, uid)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE member (
  bucket        SMALLINT UNSIGNED NOT NULL,
  tenant        VARBINARY(255)  NOT NULL,
  uid           VARBINARY(255)  NOT NULL,
  conv          VARBINARY(255)  NOT NULL,
  version       BIGINT UNSIGNED NOT NULL,
  last_epoch    BIGINT UNSIGNED NOT NULL,
  back_epoch    BIGINT UNSIGNED NOT NULL,
  last_seq      BIGINT UNSIGNED NOT NULL,
  last_ord      BIGINT UNSIGNED NOT NULL,
  read_seq      BIGINT UNSIGNED NOT NULL,
  read_ord      BIGINT UNSIGNED NOT NULL,
  peer_read_seq BIGINT UNSIGNED NOT NULL,
  blocked       TINYINT         NOT NULL,
  pinned        TINYINT         NOT NULL,
  muted         TINYINT         NOT NULL,
  hidden        TINYINT         NOT NULL,
  remark        BLOB            NOT NULL,
  updated_ms    BIGINT          NOT NULL,
  PRIMARY KEY (bucket, tenant, uid, conv),
  KEY version (bucket, tenant, uid, version)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE device (
  bucket     SMALLINT UNSIGNED NOT NULL,
  tenant     VARBINARY(255)  NOT NULL,
  uid        VARBINARY(255)  NOT NULL,
  device     VARBINARY(255)  NOT NULL,
  platform   BLOB            NOT NULL,
  push_token BLOB            NOT NULL,
  epoch      BIGINT UNSIGNED NOT NULL,
  position   BIGINT UNSIGNED NOT NULL,
  seen_ms    BIGINT          NOT NULL,
  PRIMARY KEY (bucket, tenant, uid, device)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE session (
  bucket  SMALLINT UNSIGNED NOT NULL,
  tenant  VARBINARY(255)  NOT NULL,
  uid     VARBINARY(255)  NOT NULL,
  class   VARBINARY(255)  NOT NULL,
  slot    INT UNSIGNED    NOT NULL,
  device  BLOB            NOT NULL,
  epoch   BIGINT UNSIGNED NOT NULL,
  counter BIGINT UNSIGNED NOT NULL,
  gateway BLOB            NOT NULL,
  seen_ms BIGINT          NOT NULL,
  PRIMARY KEY (bucket, tenant, uid, class, slot)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Outbox rows are inserted and deleted, never changed (R06). entries: see values.go.
CREATE TABLE outbox_fanout (
  owner      VARBINARY(255)  NOT NULL,
  n          BIGINT UNSIGNED NOT NULL,
  created_ms BIGINT          NOT NULL,
  entries    MEDIUMBLOB      NOT NULL,
  PRIMARY KEY (owner, n)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE outbox_deliver (
  owner      VARBINARY(255)  NOT NULL,
  n          BIGINT UNSIGNED NOT NULL,
  created_ms BIGINT          NOT NULL,
  entries    MEDIUMBLOB      NOT NULL,
  PRIMARY KEY (owner, n)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE push (
  bucket   SMALLINT UNSIGNED NOT NULL,
  tenant   VARBINARY(255)  NOT NULL,
  uid      VARBINARY(255)  NOT NULL,
  at_ms    BIGINT          NOT NULL,
  device   VARBINARY(255)  NOT NULL,
  conv     VARBINARY(255)  NOT NULL,
  seq      BIGINT UNSIGNED NOT NULL,
  platform BLOB            NOT NULL,
  title    BLOB            NOT NULL,
  body     MEDIUMBLOB      NOT NULL,
  collapse BLOB            NOT NULL,
  badge    BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (bucket, tenant, uid, at_ms, device, conv, seq)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which buckets may be written here, and at which epoch (R17, R18).
CREATE TABLE bucket (
  id    INT UNSIGNED    NOT NULL,
  epoch BIGINT UNSIGNED NOT NULL,
  open  TINYINT         NOT NULL,
  PRIMARY KEY (id)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO bucket (id, epoch, open)
SELECT a.d * 256 + b.d * 64 + c.d * 16 + d.d * 4 + e.d, 1, 1
FROM (SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) a,
     (SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) b,
     (SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) c,
     (SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) d,
     (SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) e;

-- Written by Store.Barrier and read by nobody (R19). A few rows, so that barriers do not queue.
CREATE TABLE barrier (
  id INT UNSIGNED    NOT NULL,
  n  BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (id)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down

DROP TABLE barrier, bucket, push, outbox_deliver, outbox_fanout, session, device, member, user_head, modified, message, conversation;
