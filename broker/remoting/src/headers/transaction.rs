//! Transactions.

use crate::headers;

/// Values of [`EndTransaction::commit_or_rollback`].
pub mod outcome {
    /// Not known yet.
    pub const UNKNOWN: i32 = 0;
    /// To be delivered.
    pub const COMMIT: i32 = 8;
    /// To be dropped.
    pub const ROLLBACK: i32 = 12;
}

headers! {
    /// END_TRANSACTION (37).
    pub struct EndTransaction<'a> {
        "producerGroup" => producer_group: &'a str,
        /// Offset in the half message's queue.
        "tranStateTableOffset" => tran_state_table_offset: i64,
        /// Physical offset of the half message.
        "commitLogOffset" => commit_log_offset: i64,
        /// See [`outcome`].
        "commitOrRollback" => commit_or_rollback: i32,
        "fromTransactionCheck" => from_transaction_check: Option<bool>,
        "msgId" => msg_id: &'a str,
        "transactionId" => transaction_id: Option<&'a str>,
        "topic" => topic: Option<&'a str>,
    }

    /// CHECK_TRANSACTION_STATE (39), broker to client; the body is the half message.
    pub struct CheckTransactionState<'a> {
        "tranStateTableOffset" => tran_state_table_offset: i64,
        "commitLogOffset" => commit_log_offset: i64,
        "topic" => topic: Option<&'a str>,
        "msgId" => msg_id: Option<&'a str>,
        "transactionId" => transaction_id: Option<&'a str>,
        "offsetMsgId" => offset_msg_id: Option<&'a str>,
    }
}
