package sqlstore

// SchemaVersion is the version of the tables that this program needs.
const SchemaVersion = schemaVersion
