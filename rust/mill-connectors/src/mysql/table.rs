//! The table that is written: made, or compared with the columns of the stream before the first record.

use ::mysql::Conn;
use ::mysql::prelude::Queryable as _;
use arrow::datatypes::{DataType, SchemaRef};
use mill_protocol::{Error, Result};

use super::address::{Attempt, Failure};
use super::form::{self, Form};
use super::name::{TableName, constant, identifier, identifiers};
use super::sink::Shared;
use crate::nearest::{did_you_mean, quoted};

/// As many characters, or bytes, as a column of a key has where the table is made; all columns of a key have three times as many.
const KEY_CHARACTERS_MAX: usize = 255;
const KEYS_CHARACTERS_MAX: usize = 768;

/// How rows are stored in the table.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The table, with its database.
    pub(super) table: TableName,
    /// In the order of the stream.
    pub(super) columns: Vec<Column>,
    /// Which of them are the key.
    pub(super) key: Option<Vec<usize>>,
    /// No statement that is longer is taken by the server.
    pub(super) packet_max: usize,
}

/// A column of the table that is written.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) form: Form,
    /// As the server declares it.
    declared: String,
    pub(super) takes_null: bool,
    pub(super) characters_max: Option<usize>,
    pub(super) bytes_max: Option<usize>,
    /// What the server does to the end of a value.
    pub(super) end: End,
}

/// What a column does to the end of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Kept,
    /// Blanks are taken off, or count for nothing where keys are compared.
    Blanks,
    /// Bytes are filled up to the length of the column.
    Filled,
}

/// A column as the catalog describes it.
struct Described {
    name: String,
    data_type: String,
    declared: String,
    is_nullable: bool,
    has_default: bool,
    extra: String,
    characters_max: Option<usize>,
    bytes_max: Option<usize>,
    precision: Option<u32>,
    scale: Option<u32>,
    digits: Option<u8>,
    charset: Option<String>,
    collation: Option<String>,
}

impl Layout {
    /// What kept rows were written for, to be compared when they are sent.
    pub(super) fn fingerprint(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("{} {}", identifier(&column.name), column.declared)).collect();
        let key: Vec<&str> = self.key.iter().flatten().map(|place| self.columns[*place].name.as_str()).collect();
        format!("({}) key ({})", columns.join(", "), identifiers(key))
    }

    /// The beginning of a statement that adds rows.
    pub(super) fn insert(&self) -> String {
        format!("INSERT INTO {} ({}) VALUES ", self.table.sql(), identifiers(self.columns.iter().map(|column| column.name.as_str())))
    }

    /// Its end, where the rows of the same keys are replaced.
    pub(super) fn replace(&self, key: &[usize]) -> String {
        let replaced = |place: &usize| {
            let name = identifier(&self.columns[*place].name);
            format!("{name} = VALUES({name})")
        };
        let rest: Vec<String> = (0..self.columns.len()).filter(|place| !key.contains(place)).map(|place| replaced(&place)).collect();
        // A table of nothing but the key has nothing to replace.
        let rest = if rest.is_empty() { vec![replaced(&key[0])] } else { rest };
        format!(" ON DUPLICATE KEY UPDATE {}", rest.join(", "))
    }

    /// The beginning of a statement that deletes the rows of keys.
    pub(super) fn delete(&self, key: &[usize]) -> String {
        let names = identifiers(key.iter().map(|place| self.columns[*place].name.as_str()));
        format!("DELETE FROM {} WHERE ({names}) IN (", self.table.sql())
    }
}

/// Whether there is such a table.
pub(super) fn exists(shared: &Shared, client: &mut Conn) -> Attempt<bool> {
    Ok(find(shared, client)?.is_some())
}

/// The database that a table is in, what it is, and its engine.
fn find(shared: &Shared, client: &mut Conn) -> Attempt<Option<(String, String, Option<String>)>> {
    let sql = format!("SELECT TABLE_SCHEMA, TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE {}", shared.table.is_in_catalog());
    client.query_first(sql).map_err(|e| shared.failure("look at the table", &e))
}

/// Makes the table if there is none, and compares it with the columns of the stream.
pub(super) fn open(shared: &Shared, client: &mut Conn) -> Attempt<Layout> {
    let schema = shared.schema()?;
    let found = match find(shared, client)? {
        Some(found) => found,
        None if !shared.creates => {
            return Err(Error::schema(format!("{}: there is no table {}, and create is False", shared.call(), shared.table.sql())).into());
        }
        None => {
            let sql = create(shared, client, &schema)?;
            client.query_drop(sql).map_err(|e| shared.failure("make the table", &e))?;
            find(shared, client)?.ok_or_else(|| Error::connector(format!("{}: the table was made and is gone", shared.call())))?
        }
    };
    let (database, kind, engine) = found;
    let refused = |why: String| Failure::Final(Error::schema(format!("{}: {} {why}", shared.call(), shared.table.sql())));
    match kind.as_str() {
        "BASE TABLE" | "SYSTEM VERSIONED" => {}
        "VIEW" | "SYSTEM VIEW" => return Err(refused("is a view; write into a table".to_owned())),
        _ => return Err(refused("is not a table that outlives its connection".to_owned())),
    }
    let engine = engine.unwrap_or_default();
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return Err(refused(format!(
            "is stored by the engine {engine}, and rows are written in transactions of InnoDB: ALTER TABLE … ENGINE = InnoDB, or write into \
             another table"
        )));
    }
    let packet_max: Option<usize> =
        client.query_first("SELECT @@max_allowed_packet").map_err(|e| shared.failure("ask for max_allowed_packet", &e))?;
    let table = TableName { database: Some(database), table: shared.table.table.clone() };
    let columns = columns(shared, describe(shared, client, &table)?, &schema)?;
    let mut layout = Layout { table, columns, key: None, packet_max: packet_max.unwrap_or(1 << 20) };
    if let Some(key) = &shared.key {
        check_indexes(shared, client, &layout.table, key)?;
        let places: Vec<usize> = key.iter().filter_map(|name| layout.columns.iter().position(|column| column.name == *name)).collect();
        for place in &places {
            // A unique index lets in any number of nulls.
            layout.columns[*place].takes_null = false;
        }
        layout.key = Some(places);
    }
    Ok(layout)
}

/// Refuses a table that was altered since it was opened, and keeps it from being altered until the transaction ends.
pub(super) fn check_unchanged(shared: &Shared, layout: &Layout, client: &mut Conn) -> Attempt<()> {
    let locked = client.query_drop(format!("SELECT 1 FROM {} LIMIT 0", layout.table.sql()));
    locked.map_err(|e| shared.failure("look at the table", &e))?;
    let now = describe(shared, client, &layout.table)?;
    for column in &layout.columns {
        let now = now.iter().find(|now| now.name == column.name).map(Described::declaration);
        if now.as_ref() != Some(&column.declared) {
            let now = now.map_or("is gone".to_owned(), |now| format!("is {now} now"));
            return Err(Failure::Final(Error::schema(format!(
                "{}: the column {:?} of the table was {} when the job began, and {now}; put it back as it was, until the rows that wait are \
                 written",
                shared.call(),
                column.name,
                column.declared
            ))));
        }
    }
    Ok(())
}

/// Declares a table for these columns.
fn create(shared: &Shared, client: &mut Conn, schema: &SchemaRef) -> Attempt<String> {
    // Where texts are the same only if their bytes are. Older servers have none that does not also leave out blanks at the end.
    let exact = "SELECT COLLATION_NAME FROM information_schema.COLLATIONS WHERE COLLATION_NAME IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')";
    let collation: Option<String> = client.query_first(exact).map_err(|e| shared.failure("look at the collations of the server", &e))?;
    let collation = collation.unwrap_or_else(|| "utf8mb4_bin".to_owned());
    let key = shared.key.as_deref().unwrap_or_default();
    let is_text = |name: &String| {
        let field = schema.field_with_name(name);
        field.is_ok_and(|field| matches!(Form::for_column(field.data_type()), Some(Form::Text | Form::Binary)))
    };
    let texts = key.iter().filter(|name| is_text(name)).count().max(1);
    let characters = KEY_CHARACTERS_MAX.min(KEYS_CHARACTERS_MAX / texts);
    let mut parts = Vec::new();
    for field in schema.fields() {
        let form = Form::for_column(field.data_type()).ok_or_else(|| Error::internal("the types were checked"))?;
        let declared = match form {
            Form::Text if key.contains(field.name()) => format!("VARCHAR({characters})"),
            Form::Binary if key.contains(field.name()) => format!("VARBINARY({characters})"),
            form => form.declared(),
        };
        let null = if key.contains(field.name()) { "NOT NULL" } else { "NULL" };
        parts.push(format!("{} {declared} {null}", identifier(field.name())));
    }
    if !key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", identifiers(key.iter().map(String::as_str))));
    }
    Ok(format!(
        "CREATE TABLE IF NOT EXISTS {} ({}) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}",
        shared.table.sql(),
        parts.join(", ")
    ))
}

/// Asks for the columns of a table.
fn describe(shared: &Shared, client: &mut Conn, table: &TableName) -> Attempt<Vec<Described>> {
    let sql = format!(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE = 'YES', COLUMN_DEFAULT IS NOT NULL, EXTRA, CHARACTER_MAXIMUM_LENGTH, \
         CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_SET_NAME, COLLATION_NAME \
         FROM information_schema.COLUMNS WHERE {} ORDER BY ORDINAL_POSITION",
        table.is_in_catalog()
    );
    let rows: Vec<::mysql::Row> = client.query(sql).map_err(|e| shared.failure("look at the table", &e))?;
    let described = |row: &::mysql::Row| -> Option<Described> {
        let text = |place: usize| row.get_opt::<Option<String>, _>(place)?.ok();
        let number = |place: usize| row.get_opt::<Option<u64>, _>(place)?.ok();
        let size = |place: usize| number(place).map(|number| number.and_then(|number| usize::try_from(number).ok()));
        Some(Described {
            name: text(0)??,
            data_type: text(1)??.to_ascii_lowercase(),
            declared: text(2)??,
            is_nullable: number(3)?? != 0,
            has_default: number(4)?? != 0,
            extra: text(5)?.unwrap_or_default().to_ascii_lowercase(),
            characters_max: size(6)?,
            bytes_max: size(7)?,
            precision: number(8)?.map(|number| number as u32),
            scale: number(9)?.map(|number| number as u32),
            digits: number(10)?.map(|number| number as u8),
            charset: text(11)?,
            collation: text(12)?,
        })
    };
    let described: Option<Vec<Described>> = rows.iter().map(described).collect();
    described.ok_or_else(|| Failure::Final(Error::connector(format!("{}: the server describes the table in a form that is not known", shared.call()))))
}

impl Described {
    /// The type as the server declares it, with what texts are compared by.
    fn declaration(&self) -> String {
        match &self.collation {
            Some(collation) => format!("{} COLLATE {collation}", self.declared),
            None => self.declared.clone(),
        }
    }

    /// The form of the column; an error says why it is not written.
    fn form(&self) -> std::result::Result<Form, String> {
        let is_unsigned = self.declared.to_ascii_lowercase().contains("unsigned");
        let integer = |bits| Form::Int { bits, is_unsigned };
        Ok(match self.data_type.as_str() {
            "tinyint" => integer(8),
            "smallint" => integer(16),
            "mediumint" => integer(24),
            "int" => integer(32),
            "bigint" => integer(64),
            "bit" => Form::Bit(self.precision.unwrap_or(1)),
            // FLOAT(7,2) rounds.
            "float" | "double" if self.scale.is_some() => return Err("rounds".to_owned()),
            "float" | "double" if is_unsigned => return Err("has no negative numbers".to_owned()),
            "float" => Form::Float,
            "double" => Form::Double,
            "decimal" if is_unsigned => return Err("has no negative numbers".to_owned()),
            "decimal" => Form::Decimal(self.precision.unwrap_or(0) as u8, self.scale.unwrap_or(0) as u8),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => match self.charset.as_deref() {
                Some("utf8mb4") | None => Form::Text,
                Some(other) => return Err(format!("has the character set {other}, which lacks characters; declare it CHARACTER SET utf8mb4")),
            },
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Form::Binary,
            "json" => Form::Json,
            "date" => Form::Date,
            "time" => Form::Time(self.digits.unwrap_or(0)),
            "datetime" => Form::Datetime(self.digits.unwrap_or(0)),
            "timestamp" => Form::Timestamp(self.digits.unwrap_or(0)),
            "enum" | "set" => return Err("takes some texts only; declare it VARCHAR".to_owned()),
            other => return Err(format!("is of the type {other}, which is not written")),
        })
    }

    /// What the column does to the end of its values; an error if it takes different keys for the same.
    fn end(&self, is_key: bool) -> std::result::Result<End, String> {
        match (self.data_type.as_str(), self.collation.as_deref()) {
            ("binary", _) => Ok(End::Filled),
            (_, Some(collation)) if is_key => {
                let is_exact = collation.ends_with("_bin");
                let is_padded = !collation.contains("nopad") && !collation.contains("0900");
                match (is_exact, is_padded || self.data_type == "char") {
                    (false, _) => Err(format!(
                        "compares keys by the collation {collation}, which takes different keys for the same; declare it COLLATE utf8mb4_bin, or \
                         write into another table"
                    )),
                    (true, true) => Ok(End::Blanks),
                    (true, false) => Ok(End::Kept),
                }
            }
            ("char", _) => Ok(End::Blanks),
            _ => Ok(End::Kept),
        }
    }
}

/// The columns of the table in the order of the stream.
fn columns(shared: &Shared, there: Vec<Described>, schema: &SchemaRef) -> Attempt<Vec<Column>> {
    let call = shared.call();
    let mut columns = Vec::new();
    for field in schema.fields() {
        let name = field.name();
        let Some(described) = there.iter().find(|described| described.name == *name) else {
            let names: Vec<&str> = there.iter().map(|described| described.name.as_str()).collect();
            return Err(Error::schema(format!(
                "{call}: the table has no column {name:?}{} (it has {}); rename() the column, or write into another table",
                did_you_mean(name, names.iter().copied()),
                quoted(&names, ", ")
            ))
            .into());
        };
        if described.extra.contains("generated") && !described.extra.contains("default_generated") {
            return Err(Error::schema(format!("{call}: the column {name:?} of the table is GENERATED, so it takes no values; drop() it")).into());
        }
        let unfit = |why: &str| {
            let wanted = Form::for_column(field.data_type()).map(Form::declared).unwrap_or_default();
            Error::schema(format!(
                "{call}: the column {name:?} of the table is {}, which does not hold every {} of the stream as it is{why}; declare it {wanted}, \
                 cast() the column, or write into another table",
                described.declared,
                form::shown(field.data_type())
            ))
        };
        let form = described.form().map_err(|why| unfit(&format!(": it {why}")))?;
        if !form.holds(field.data_type()) {
            return Err(unfit("").into());
        }
        let is_key = shared.key.iter().flatten().any(|key| key == name);
        let end = described.end(is_key).map_err(|why| Error::schema(format!("{call}: the column {name:?} of the table {why}")))?;
        let is_text = matches!(form, Form::Text | Form::Binary | Form::Json) && field.data_type() != &DataType::Null;
        columns.push(Column {
            name: name.clone(),
            form,
            declared: described.declaration(),
            takes_null: described.is_nullable,
            characters_max: described.characters_max.filter(|_| is_text && form == Form::Text),
            bytes_max: described.bytes_max.filter(|_| is_text),
            end,
        });
    }
    for described in &there {
        let is_filled = described.is_nullable || described.has_default || described.extra.contains("auto_increment") || described.extra.contains("generated");
        if !is_filled && schema.field_with_name(&described.name).is_err() {
            return Err(Error::schema(format!(
                "{call}: the column {:?} of the table is NOT NULL and has no default, and the stream does not have it; add it with \
                 with_columns()",
                described.name
            ))
            .into());
        }
    }
    Ok(columns)
}

/// Refuses a table without a unique index on the key, and one with another unique index: the row of a key would replace a row that has
/// another key and the same value there.
fn check_indexes(shared: &Shared, client: &mut Conn, table: &TableName, key: &[String]) -> Attempt<()> {
    let sql = format!(
        "SELECT s.INDEX_NAME, s.COLUMN_NAME, s.SUB_PART IS NULL, c.EXTRA LIKE '%auto_increment%' FROM information_schema.STATISTICS AS s \
         LEFT JOIN information_schema.COLUMNS AS c USING (TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME) \
         WHERE s.TABLE_SCHEMA = {} AND s.TABLE_NAME = {} AND s.NON_UNIQUE = 0 ORDER BY s.INDEX_NAME, s.SEQ_IN_INDEX",
        table.database_sql(),
        constant(&table.table)
    );
    let parts: Vec<(String, Option<String>, bool, Option<bool>)> =
        client.query(sql).map_err(|e| shared.failure("look at the indexes of the table", &e))?;
    let mut wanted: Vec<&str> = key.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    let mut is_there = false;
    for index in parts.chunk_by(|left, right| left.0 == right.0) {
        let mut names: Vec<&str> = index.iter().map(|(_, column, ..)| column.as_deref().unwrap_or_default()).collect();
        names.sort_unstable();
        let is_whole = index.iter().all(|(_, column, is_whole, _)| *is_whole && column.is_some());
        // Numbers that the server gives meet no other row.
        let is_counted = index.iter().any(|(_, column, _, counts)| {
            *counts == Some(true) && column.as_ref().is_some_and(|column| shared.schema().is_ok_and(|schema| schema.field_with_name(column).is_err()))
        });
        if is_whole && names == wanted {
            is_there = true;
        } else if !is_counted {
            return Err(Failure::Final(Error::schema(format!(
                "{}: the table has another unique index than that of the key, {:?} on ({}): a row would replace one that has another key and \
                 the same value there; drop the index, or write into another table",
                shared.call(),
                index[0].0,
                quoted(&names, ", ")
            ))));
        }
    }
    if is_there {
        return Ok(());
    }
    Err(Failure::Final(Error::schema(format!(
        "{}: the table has no primary key or unique index on ({}); make one, or write into another table",
        shared.call(),
        quoted(key, ", ")
    ))))
}

/// Refuses a name that MySQL cannot have.
pub(super) fn check_name(call: &str, what: &str, name: &str) -> Result<()> {
    const CHARACTERS_MAX: usize = 64;
    let count = name.chars().count();
    let is_outside = name.chars().any(|c| c == '\0' || u32::from(c) > 0xffff);
    if count == 0 || count > CHARACTERS_MAX || is_outside || name.ends_with(' ') {
        return Err(Error::schema(format!(
            "{call}: {name:?} is no name of a {what} in MySQL, which has 1 to {CHARACTERS_MAX} characters of the basic plane and no blank at its end"
        )));
    }
    Ok(())
}
