//! One row of a table over HTTP: added, and by its id shown, replaced and removed.

use std::fmt::Debug;
use std::marker::PhantomData;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use portcullis_address::RowWarning;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::CHANGES;
use super::change::{AuthorQuery, RowsRemoved};
use super::rights::Rights;
use super::work::{read_rows, with_rows};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{Dispatch, IntoReply, Procedure, not_unique, row_changed, unknown_row};
use crate::conditions::RowCondition;
use crate::operation::{
    Answer, Api, Given, Operation, Routes, Segments, answer, json_body, schema_of,
};

/// A table whose rows have an id.
pub(crate) trait Table: Debug + Sized + Send + Sync + 'static {
    /// Where the rows are.
    type Rows: Send + 'static;
    /// A row as it is stored.
    type Stored: Clone + Send + 'static;
    /// A row that is added, or replaces another one.
    type New: Debug + Send + 'static;
    /// The same as it is sent.
    type Sent: DeserializeOwned + JsonSchema + Send;
    /// The reply that shows a row.
    type Shown: From<Self::Stored> + IntoReply + JsonSchema + Send;
    /// The reply to an addition or a replacement.
    type Added: IntoReply + JsonSchema + Send;

    /// The path of the table.
    const PATH: &'static str;
    /// The path of a row.
    const ROW: &'static str;
    /// Whether tenants may use it.
    const IS_OPEN: bool;
    /// The name of each operation and what it does: add, show, replace, remove.
    const OPERATIONS: [[&'static str; 2]; 4];
    /// Error statuses of an addition.
    const NOT_ADDED: &'static [u16];
    /// Error statuses of a removal.
    const REFUSED: &'static [u16];

    fn rows(control: &Control) -> Self::Rows;

    /// # Errors
    /// 422 if the row contradicts itself.
    fn read(sent: Self::Sent) -> Result<Self::New, Fault>;

    /// What the audit says about this row.
    fn subject(new: &Self::New) -> String;

    fn added(id: Option<i64>, new: Self::New, warning: Option<RowWarning>) -> Self::Added;

    /// Whether the caller may see the row.
    fn sees(rights: &Rights, row: &Self::Stored) -> bool;

    /// # Errors
    /// 403 if the caller may not change the row.
    fn check_edit(rights: &Rights, row: &Self::Stored) -> Result<(), Fault>;

    /// # Errors
    /// 403 or 422 if the caller may not have such a row.
    fn check_new(rights: &Rights, row: &Self::New) -> Result<(), Fault>;

    /// Adds the row. Returns its id, if the table gives ids, and the warning of a load.
    ///
    /// # Errors
    /// 422 if a load would skip the row or there are too many, 409 if there is such a row already or the rows are in a file, 503 if the database
    /// fails.
    fn add(
        rows: &Self::Rows,
        rights: &Rights,
        new: &Self::New,
    ) -> impl Future<Output = Result<(Option<i64>, Option<RowWarning>), Fault>>;

    /// The rows with this id.
    ///
    /// # Errors
    /// 409 if the rows are in a file, 503 if the database fails. The same for changes.
    fn find(rows: &Self::Rows, id: i64) -> impl Future<Output = Result<Vec<Self::Stored>, Fault>>;

    /// Replaces the row, if it is still as it was read.
    ///
    /// # Errors
    /// 422 if a load would skip the new row, too.
    fn replace(
        rows: &Self::Rows,
        id: i64,
        read: &Self::Stored,
        new: &Self::New,
    ) -> impl Future<Output = Result<(bool, Option<RowWarning>), Fault>>;

    /// Removes the row, if it is still as it was read.
    fn remove(
        rows: &Self::Rows,
        id: i64,
        read: &Self::Stored,
    ) -> impl Future<Output = Result<bool, Fault>>;
}

/// Adds a row.
#[derive(Debug)]
pub(crate) struct AddRow<T: Table> {
    new: T::New,
}

/// Shows a row.
#[derive(Debug)]
pub(crate) struct ShowRow<T> {
    id: i64,
    table: PhantomData<T>,
}

/// Replaces a row.
#[derive(Debug)]
pub(crate) struct ReplaceRow<T: Table> {
    id: i64,
    new: T::New,
    condition: RowCondition,
}

/// Removes a row.
#[derive(Debug)]
pub(crate) struct DeleteRow<T> {
    id: i64,
    condition: RowCondition,
    table: PhantomData<T>,
}

impl<T: Table> Procedure for AddRow<T> {
    type Reply = T::Added;

    const IS_OPEN: bool = T::IS_OPEN;

    fn subject(&self) -> Option<String> {
        Some(T::subject(&self.new))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<T::Added, Fault> {
        let Self { new } = self;
        let rights = Rights::of(control, caller)?;
        T::check_new(&rights, &new)?;
        let added = with_rows(T::rows(control), move |rows| async move {
            let (id, warning) = T::add(&rows, &rights, &new).await?;
            Ok((id, new, warning))
        });
        let (id, new, warning) = added.await?;
        Ok(T::added(id, new, warning))
    }
}

impl<T: Table> Procedure for ShowRow<T> {
    type Reply = T::Shown;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = T::IS_OPEN;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<T::Shown, Fault> {
        let rights = Rights::of(control, caller)?;
        Ok(stored::<T>(control, &rights, self.id).await?.into())
    }
}

impl<T: Table> Procedure for ReplaceRow<T> {
    type Reply = T::Added;

    const IS_OPEN: bool = T::IS_OPEN;

    fn subject(&self) -> Option<String> {
        Some(format!("{}: {}", self.id, T::subject(&self.new)))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<T::Added, Fault> {
        let Self { id, new, condition } = self;
        let rights = Rights::of(control, caller)?;
        T::check_new(&rights, &new)?;
        let read = editable::<T>(control, &rights, id, &condition).await?;
        let replaced = with_rows(T::rows(control), move |rows| async move {
            let (is_done, warning) = T::replace(&rows, id, &read, &new).await?;
            Ok(is_done.then_some((new, warning)))
        });
        let (new, warning) = replaced.await?.ok_or_else(row_changed)?;
        Ok(T::added(Some(id), new, warning))
    }
}

impl<T: Table> Procedure for DeleteRow<T> {
    type Reply = RowsRemoved;

    const IS_OPEN: bool = T::IS_OPEN;

    fn subject(&self) -> Option<String> {
        Some(format!("row {}", self.id))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<RowsRemoved, Fault> {
        let Self { id, condition, .. } = self;
        let rights = Rights::of(control, caller)?;
        let read = editable::<T>(control, &rights, id, &condition).await?;
        let removed = with_rows(T::rows(control), move |rows| async move {
            T::remove(&rows, id, &read).await
        });
        match removed.await? {
            true => Ok(RowsRemoved { removed: 1 }),
            false => Err(row_changed()),
        }
    }
}

/// The row with this id, if the caller may see it.
async fn stored<T: Table>(control: &Control, rights: &Rights, id: i64) -> Result<T::Stored, Fault> {
    let rows = read_rows(T::rows(control), move |rows| async move {
        T::find(&rows, id).await
    });
    let mut rows = rows.await?;
    if rows.len() > 1 {
        return Err(not_unique(id));
    }
    let seen = rows.pop().filter(|row| T::sees(rights, row));
    seen.ok_or_else(|| unknown_row(id, T::PATH))
}

/// The row with this id, if the caller may change it and the condition is met.
async fn editable<T: Table>(
    control: &Control,
    rights: &Rights,
    id: i64,
    condition: &RowCondition,
) -> Result<T::Stored, Fault> {
    let read = stored::<T>(control, rights, id).await;
    let read = condition.check(read, |row| T::Shown::from(row.clone()).into_reply())?;
    T::check_edit(rights, &read)?;
    Ok(read)
}

impl<T: Table> AddRow<T>
where
    Self: Dispatch,
{
    /// `POST` to the table.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let [[name, about], _, _, _] = T::OPERATIONS;
        let post = Operation::new::<T::Added>(Method::POST, T::PATH, name, about);
        let post = post.query::<AuthorQuery>(&[]).answers(
            201,
            "The row was added; the hosts of the database use it within about a second",
        );
        let post = post.body("application/json", schema_of::<T::Sent>(), "The row");
        routes.on(post.refuses(T::NOT_ADDED), add::<T>)
    }
}

impl<T: Table> ShowRow<T>
where
    Self: Dispatch,
{
    /// `GET` of a row.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let [_, [name, about], _, _] = T::OPERATIONS;
        let get = Operation::new::<T::Shown>(Method::GET, T::ROW, name, about);
        let get = get.answers(200, "The row").refuses(&[404, 409, 503]);
        routes.on(get, show::<T>)
    }
}

impl<T: Table> ReplaceRow<T>
where
    Self: Dispatch,
{
    /// `PUT` of a row.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let [_, _, [name, about], _] = T::OPERATIONS;
        let put = Operation::new::<T::Added>(Method::PUT, T::ROW, name, about);
        let put = put.query::<AuthorQuery>(&[]).answers(
            200,
            "The row was replaced; the hosts of the database use it within about a second",
        );
        let put = put.body("application/json", schema_of::<T::Sent>(), "The row");
        routes.on(put.refuses(CHANGES), replace::<T>)
    }
}

impl<T: Table> DeleteRow<T>
where
    Self: Dispatch,
{
    /// `DELETE` of a row.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let [_, _, _, [name, about]] = T::OPERATIONS;
        let delete = Operation::new::<RowsRemoved>(Method::DELETE, T::ROW, name, about);
        let delete = delete.query::<AuthorQuery>(&[]);
        let delete = delete.answers(200, "The row was removed");
        routes.on(delete.refuses(T::REFUSED), delete_row::<T>)
    }
}

async fn add<T: Table>(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<AuthorQuery>,
    body: Body,
) -> Answer
where
    AddRow<T>: Dispatch,
{
    let new = T::read(json_body(body).await?)?;
    let caller = caller.called(query.author);
    let added = AddRow::<T> { new }.dispatch(&control, &caller).await;
    Ok((StatusCode::CREATED, answer(added)?).into_response())
}

async fn show<T: Table>(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<i64>,
) -> Answer
where
    ShowRow<T>: Dispatch,
{
    let table = PhantomData;
    answer(ShowRow::<T> { id, table }.dispatch(&control, &caller).await)
}

async fn replace<T: Table>(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: RowCondition,
    Segments(id): Segments<i64>,
    Given(query): Given<AuthorQuery>,
    body: Body,
) -> Answer
where
    ReplaceRow<T>: Dispatch,
{
    let new = T::read(json_body(body).await?)?;
    let command = ReplaceRow::<T> { id, new, condition };
    let caller = caller.called(query.author);
    answer(command.dispatch(&control, &caller).await)
}

async fn delete_row<T: Table>(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: RowCondition,
    Segments(id): Segments<i64>,
    Given(query): Given<AuthorQuery>,
) -> Answer
where
    DeleteRow<T>: Dispatch,
{
    let command = DeleteRow::<T> {
        id,
        condition,
        table: PhantomData,
    };
    let caller = caller.called(query.author);
    answer(command.dispatch(&control, &caller).await)
}
