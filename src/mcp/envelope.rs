//! What stands in the body? The members that matter, found in the same reading that checks the whole body.

use super::json::DEPTH_MAX;
use super::json::JsonError;
use super::json::Kind;
use super::json::Raw;
use super::json::Reader;
use super::keys;

/// What a body holds.
pub(super) enum Body<'a> {
    Batch(Vec<Envelope<'a>>),
    BatchTooLong,
    /// JSON, but a scalar, or an array with something else than objects.
    NoMessage,
    One(Box<Envelope<'a>>),
}

/// The members of a JSON-RPC message, of whatever kind they are.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) jsonrpc: Option<Raw<'a>>,
    pub(super) id: Option<Raw<'a>>,
    pub(super) method: Option<Raw<'a>>,
    pub(super) params: Option<Params<'a>>,
    pub(super) result: Option<Raw<'a>>,
    pub(super) error: Option<Raw<'a>>,
}

/// `params`; its members are known only when it is an object.
pub(super) struct Params<'a> {
    pub(super) raw: Raw<'a>,
    pub(super) arguments: Option<Raw<'a>>,
    pub(super) meta: Option<Meta<'a>>,
    pub(super) name: Option<Raw<'a>>,
    pub(super) protocol_version: Option<Raw<'a>>,
    pub(super) reference: Option<Reference<'a>>,
    pub(super) task_id: Option<Raw<'a>>,
    pub(super) uri: Option<Raw<'a>>,
}

/// `params._meta`.
pub(super) struct Meta<'a> {
    pub(super) raw: Raw<'a>,
    pub(super) protocol_version: Option<Raw<'a>>,
    pub(super) client_capabilities: Option<Raw<'a>>,
}

/// `params.ref`.
#[derive(Default)]
pub(super) struct Reference<'a> {
    pub(super) kind: Option<Raw<'a>>,
    pub(super) name: Option<Raw<'a>>,
    pub(super) uri: Option<Raw<'a>>,
}

impl Default for Params<'_> {
    fn default() -> Self {
        let raw = Raw { kind: Kind::Null, start: 0, text: "" };
        Self {
            raw,
            arguments: None,
            meta: None,
            name: None,
            protocol_version: None,
            reference: None,
            task_id: None,
            uri: None,
        }
    }
}

/// Reads and checks a whole body.
///
/// # Errors
/// When it is not JSON that can be read in only one way.
pub(super) fn read_body(bytes: &[u8], depth_max: usize, batch_max: usize) -> Result<Body<'_>, JsonError> {
    let mut reader = Reader::new(bytes, depth_max.min(DEPTH_MAX))?;
    let body = match reader.peek()? {
        Kind::Object => Body::One(Box::new(read_envelope(&mut reader)?)),
        Kind::Array => read_batch(&mut reader, batch_max)?,
        Kind::Bool | Kind::Null | Kind::Number | Kind::String => {
            reader.skip()?;
            Body::NoMessage
        }
    };
    reader.end()?;
    Ok(body)
}

fn read_batch<'a>(reader: &mut Reader<'a>, batch_max: usize) -> Result<Body<'a>, JsonError> {
    let mut envelopes = Vec::new();
    let mut too_long = false;
    let mut only_objects = true;
    reader.array(|reader| {
        if reader.peek()? != Kind::Object {
            only_objects = false;
        } else if envelopes.len() < batch_max {
            envelopes.push(read_envelope(reader)?);
            return Ok(());
        } else {
            too_long = true;
        }
        reader.skip().map(drop)
    })?;
    if too_long {
        Ok(Body::BatchTooLong)
    } else if only_objects {
        Ok(Body::Batch(envelopes))
    } else {
        Ok(Body::NoMessage)
    }
}

fn read_envelope<'a>(reader: &mut Reader<'a>) -> Result<Envelope<'a>, JsonError> {
    let mut envelope = Envelope::default();
    reader.object(|reader, key| {
        let member = match &*key {
            "jsonrpc" => &mut envelope.jsonrpc,
            "id" => &mut envelope.id,
            "method" => &mut envelope.method,
            "params" => {
                envelope.params = Some(read_params(reader)?);
                return Ok(());
            }
            "result" => &mut envelope.result,
            "error" => &mut envelope.error,
            other if keys::is_variant(other, keys::ENVELOPE_KEYS) => return Err(JsonError::VariantKey),
            _ => return reader.skip().map(drop),
        };
        *member = Some(reader.skip()?);
        Ok(())
    })?;
    Ok(envelope)
}

fn read_params<'a>(reader: &mut Reader<'a>) -> Result<Params<'a>, JsonError> {
    let mut params = Params::default();
    if reader.peek()? != Kind::Object {
        params.raw = reader.skip()?;
        return Ok(params);
    }
    params.raw = reader.object(|reader, key| {
        let member = match &*key {
            "arguments" => &mut params.arguments,
            "name" => &mut params.name,
            "protocolVersion" => &mut params.protocol_version,
            "taskId" => &mut params.task_id,
            "uri" => &mut params.uri,
            "_meta" => {
                params.meta = Some(read_meta(reader)?);
                return Ok(());
            }
            "ref" => {
                params.reference = Some(read_reference(reader)?);
                return Ok(());
            }
            other if keys::is_variant(other, keys::PARAM_KEYS) => return Err(JsonError::VariantKey),
            _ => return reader.skip().map(drop),
        };
        *member = Some(reader.skip()?);
        Ok(())
    })?;
    Ok(params)
}

fn read_meta<'a>(reader: &mut Reader<'a>) -> Result<Meta<'a>, JsonError> {
    let mut protocol_version = None;
    let mut client_capabilities = None;
    let raw = if reader.peek()? == Kind::Object {
        reader.object(|reader, key| {
            match &*key {
                keys::META_PROTOCOL_VERSION => protocol_version = Some(reader.skip()?),
                keys::META_CLIENT_CAPABILITIES => client_capabilities = Some(reader.skip()?),
                other if keys::is_meta_variant(other) => return Err(JsonError::VariantKey),
                _ => drop(reader.skip()?),
            }
            Ok(())
        })?
    } else {
        reader.skip()?
    };
    Ok(Meta { raw, protocol_version, client_capabilities })
}

fn read_reference<'a>(reader: &mut Reader<'a>) -> Result<Reference<'a>, JsonError> {
    let mut reference = Reference::default();
    if reader.peek()? != Kind::Object {
        reader.skip()?;
        return Ok(reference);
    }
    reader.object(|reader, key| {
        match &*key {
            "type" => reference.kind = Some(reader.skip()?),
            "name" => reference.name = Some(reader.skip()?),
            "uri" => reference.uri = Some(reader.skip()?),
            other if keys::is_variant(other, keys::REF_KEYS) => return Err(JsonError::VariantKey),
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    Ok(reference)
}
